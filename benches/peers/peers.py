"""The Python side of `cargo xtask bench-peers`: one case a process, one JSON line.

`run CASE` does what `spinexr-bench run CASE` does, on the same inputs; `meter` times a whole command, of either side.
Libraries are imported where they are used: `meter` must stay small, because the peak memory of a child is at least
that of the process it was started from.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


class Inputs:
    """The folder that `spinexr-bench inputs` filled."""

    def __init__(self, folder, threads):
        self.folder = Path(folder)
        self.threads = threads
        self.sizes = self.json("sizes.json")

    def json(self, name):
        return json.loads((self.folder / name).read_text())

    def tensors(self, name):
        from safetensors.torch import load_file

        return load_file(self.folder / name)

    def torch(self):
        import torch

        torch.set_num_threads(self.threads)
        return torch


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def with_weights(model, state):
    """Fills a model; only PyTorch's own counters may be missing."""
    missing, unexpected = model.load_state_dict(state, strict=False)
    wrong = [name for name in missing if not name.endswith("num_batches_tracked")] + unexpected
    if wrong:
        raise ValueError(f"the weights do not fit the network: {wrong[:5]}")
    return model


# Each case gives a function that runs once and returns the seconds that count and what was computed.


def densenet121(inputs):
    from torchvision.models import densenet121

    return with_weights(densenet121(num_classes=1), inputs.tensors("densenet121.safetensors"))


def densenet121_infer(inputs, batch):
    torch = inputs.torch()
    model = densenet121(inputs).eval()
    images = inputs.tensors("images.safetensors")["classifier"][:batch].contiguous()

    def once():
        with torch.inference_mode():
            seconds, logits = timed(lambda: model(images).numpy())
        return seconds, float(logits.mean())

    return once


def densenet121_step(inputs):
    torch = inputs.torch()
    model = densenet121(inputs).train()
    data = inputs.tensors("images.safetensors")

    def step():
        model.zero_grad(set_to_none=True)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(data["classifier"]), data["labels"])
        loss.backward()
        return loss.item()

    return lambda: timed(step)


def retinanet(inputs):
    """The published detector; its own transform normalises and leaves an image of `sizes.json`'s measures as it is."""
    from torchvision.models.detection import retinanet_resnet50_fpn

    sides = sorted([inputs.sizes["detector_height_px"], inputs.sizes["detector_width_px"]])
    model = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=7, min_size=sides[0], max_size=sides[1]
    )
    image = inputs.tensors("images.safetensors")["detector"][0].repeat(3, 1, 1)  # [3, H, W]
    return with_weights(model, inputs.tensors("retinanet_r50.safetensors")), image


def retinanet_infer(inputs):
    torch = inputs.torch()
    model, image = retinanet(inputs)
    model.eval()

    def once():
        with torch.inference_mode():
            seconds, found = timed(lambda: model([image]))
        return seconds, found[0]["scores"].sum().item()

    return once


def retinanet_step(inputs):
    torch = inputs.torch()
    model, image = retinanet(inputs)
    model.train()
    boxes = inputs.json("targets.json")
    target = {
        "boxes": torch.tensor([b["xyxy"] for b in boxes]),
        "labels": torch.tensor([b["class"] for b in boxes]),
    }

    def step():
        model.zero_grad(set_to_none=True)
        loss = sum(model([image], [target]).values())
        loss.backward()
        return loss.item()

    return lambda: timed(step)


def sparse_rcnn(inputs):
    """The published network out of torchvision's parts, which lack it; it is in a file of its own."""
    from sparse_rcnn import SparseRcnn

    torch = inputs.torch()
    model = SparseRcnn(stages=inputs.sizes["sparse_rcnn_stages"], num_classes=7)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    image = inputs.tensors("images.safetensors")["detector"]  # [1, 1, H, W]
    model = with_weights(model, inputs.tensors("sparse_rcnn_r50.safetensors"))
    return model, lambda: (image.repeat(1, 3, 1, 1) - mean) / std


def sparse_rcnn_infer(inputs):
    torch = inputs.torch()
    model, image = sparse_rcnn(inputs)
    model.eval()

    def once():
        with torch.inference_mode():
            seconds, scores = timed(lambda: model.detect(image())[1])
        return seconds, scores.sum().item()

    return once


def sparse_rcnn_step(inputs):
    torch = inputs.torch()
    model, image = sparse_rcnn(inputs)
    model.train()
    boxes = inputs.json("targets.json")
    truth = torch.tensor([b["xyxy"] for b in boxes]), torch.tensor([b["class"] for b in boxes])

    def step():
        model.zero_grad(set_to_none=True)
        loss = model.loss(image(), *truth)
        loss.backward()
        return loss.item()

    return lambda: timed(step)


def display_pixels(path):
    """The published VinDr recipe: VOI LUT on stored values, inversion of MONOCHROME1, stretched to 8 bits, truncated."""
    import numpy as np
    import pydicom
    from pydicom.pixels import apply_voi_lut

    film = pydicom.dcmread(path)
    pixels = apply_voi_lut(film.pixel_array, film)
    if film.PhotometricInterpretation == "MONOCHROME1":
        pixels = np.amax(pixels) - pixels
    pixels = pixels - np.min(pixels)
    return (pixels / np.max(pixels) * 255).astype(np.uint8)


def prepare_film(job):
    """One film to a PNG file of the network's input size. Compressed at level 1, as OpenCV does; Pillow's own 6 is slower."""
    from PIL import Image

    path, out, width_px, height_px = job
    resized = Image.fromarray(display_pixels(path)).resize((width_px, height_px), Image.Resampling.BILINEAR)
    resized.save(out, compress_level=1)


def prepare(inputs):
    from multiprocessing import Pool

    import numpy as np
    from PIL import Image

    films = [inputs.folder / film for film in inputs.json("films.json")]
    size = (inputs.sizes["prepared_width_px"], inputs.sizes["prepared_height_px"])
    # As many processes as the other side has threads, started beforehand and kept.
    pool = Pool(inputs.threads)

    def once():
        with tempfile.TemporaryDirectory(dir=inputs.folder) as out:
            jobs = [(film, f"{out}/{film.stem}.png", *size) for film in films]
            seconds, _ = timed(lambda: pool.map(prepare_film, jobs, chunksize=1))
            means = [np.asarray(Image.open(job[1])).mean() / 255 for job in jobs]
        return seconds, float(np.mean(means))

    return once


def coco_eval(inputs):
    import numpy as np
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(inputs.folder / "truth.json")
    detections = truth.loadRes(str(inputs.folder / "detections.json"))

    def evaluate():
        evaluation = COCOeval(truth, detections, "bbox")
        evaluation.params.iouThrs = np.linspace(0.2, 0.5, 7)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation.eval["precision"]

    def once():
        seconds, precision = timed(evaluate)
        return seconds, float(precision[precision > -1].mean())

    return once


def bootstrap(inputs):
    """The usual loop over scikit-learn. It makes fewer resamples than asked, and its time is scaled."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    data = inputs.json("scores.json")
    labels, scores = np.array(data["labels"]), np.array(data["scores"])
    made = inputs.sizes["peer_resamples"]

    def loop():
        rng = np.random.default_rng(1)
        aurocs = []
        for _ in range(made):
            drawn = rng.integers(0, len(labels), len(labels))
            aurocs.append(roc_auc_score(labels[drawn], scores[drawn]))
        return float(np.mean(aurocs))

    def once():
        seconds, mean = timed(loop)
        return seconds * inputs.sizes["resamples"] / made, mean

    return once


CASES = {
    "densenet121-infer-b1": lambda inputs: densenet121_infer(inputs, 1),
    "densenet121-infer-b8": lambda inputs: densenet121_infer(inputs, inputs.sizes["batch"]),
    "densenet121-step-b8": densenet121_step,
    "retinanet-r50-infer": retinanet_infer,
    "retinanet-r50-step": retinanet_step,
    "sparse-rcnn-r50-infer": sparse_rcnn_infer,
    "sparse-rcnn-r50-step": sparse_rcnn_step,
    "prepare": prepare,
    "coco-eval": coco_eval,
    "bootstrap": bootstrap,
}


def command(argv):
    """A whole process, from its start to its end."""

    def once():
        seconds, done = timed(lambda: subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        if done.returncode != 0:
            raise RuntimeError(f"{argv[0]} ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
        return seconds, None

    return once


def measure(once, warmup, iterations):
    """Seconds of the runs that count, and what the first of all computed."""
    runs = [once() for _ in range(warmup + iterations)]
    return [seconds for seconds, _ in runs[warmup:]], runs[0][1]


def report(case, once, args, whose):
    # What libraries print of their progress goes to stderr: stdout is for the one line.
    with contextlib.redirect_stdout(sys.stderr):
        seconds, check = measure(once(), args.warmup, args.iterations)
    peak = resource.getrusage(whose).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    print(json.dumps({"case": case, "seconds": seconds, "check": check, "max_rss_kb": peak}))


def save_state_dict(folder):
    """The weights of the classifier as a file that PyTorch loads, for the cold start."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(Path(folder) / "densenet121.safetensors"), Path(folder) / "densenet121.pt")


def versions(requirements):
    """The packages of a requirements file as they are installed."""
    from importlib.metadata import version

    lines = [line.split("==")[0].strip() for line in Path(requirements).read_text().splitlines()]
    names = [name for name in lines if name and not name.startswith("#")]
    return ", ".join(f"{name} {version(name)}" for name in names)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    inputs = commands.add_parser("inputs", help="add what only Python reads to the folder of inputs")
    inputs.add_argument("dir")
    run = commands.add_parser("run", help="time one case")
    run.add_argument("case", choices=CASES)
    run.add_argument("--inputs", required=True)
    run.add_argument("--threads", type=int, default=2)
    packages = commands.add_parser("versions", help="print the versions of a requirements file's packages")
    packages.add_argument("requirements")
    meter = commands.add_parser("meter", help="time a whole command")
    meter.add_argument("case")
    meter.add_argument("argv", nargs="+", metavar="-- COMMAND")
    for timing in (run, meter):
        timing.add_argument("--warmup", type=int, default=1)
        timing.add_argument("--iterations", type=int, default=5)
    args = parser.parse_args()
    if args.command == "inputs":
        save_state_dict(args.dir)
    elif args.command == "versions":
        print(versions(args.requirements))
    elif args.command == "run":
        report(args.case, lambda: CASES[args.case](Inputs(args.inputs, args.threads)), args, resource.RUSAGE_SELF)
    else:
        report(args.case, lambda: command(args.argv), args, resource.RUSAGE_CHILDREN)


if __name__ == "__main__":
    main()
    # The workers of a pool are idle; there is nothing to wait for.
    sys.stdout.flush()
    os._exit(0)
