"""The Python side of `cargo xtask spine-films`: torchvision's RetinaNet on real spine films.

`prepare` makes the data set in the VinDr-SpineXR layout with a class list of its own, `initial` the weights that both sides begin with, `train` trains
torchvision's network by the recipe of a configuration and writes its boxes on the held-out films. File names of the
source carry patients' sex and age: nothing of them is written, films go by a hash of their path.
"""

import argparse
import csv
import hashlib
import json
import math
import random
import shutil
import time
import tomllib
from pathlib import Path

CLASSES = 1
VERTEBRA = 0
LABEL = "Vertebrae"


def film_id(path):
    return hashlib.sha256(path.encode()).hexdigest()[:32]


def labels(path, width, height):
    """Boxes of a YOLO label file in film pixels, and the lines left out: polygons, boxes without area."""
    boxes, left_out = [], 0
    for line in path.read_text().splitlines():
        values = [float(value) for value in line.split()]
        if len(values) != 5 or min(values[3:]) <= 0:
            left_out += 1
            continue
        _, x, y, w, h = values
        box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
        boxes.append([min(max(v, 0.0), limit) for v, limit in zip(box, [width, height] * 2)])
    return boxes, left_out


def prepare(args):
    """The listed films only: half of the source's files are mirrored copies that lie across its folders."""
    from PIL import Image

    counts = {}
    with open(args.list, newline="") as lines:
        listed = list(csv.DictReader(lines, delimiter="\t"))
    out = Path(args.out)
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    (out / "annotations" / "classes.txt").write_text(f"{LABEL}\n")
    columns = ["study_id", "series_id", "image_id", "rad_id", "lesion_type", "xmin", "ymin", "xmax", "ymax"]
    for split, part in [("train", "train"), ("val", "test")]:
        (out / f"{part}_images").mkdir(exist_ok=True)
        rows, films, left_out = [], 0, 0
        for film in (film for film in listed if film["split"] == split):
            source = Path(args.films) / film["path_in_repo"]
            width, height = Image.open(source).size
            label = Path(str(source).replace("/images/", "/labels/")).with_suffix(".txt")
            boxes, bad = labels(label, width, height)
            left_out += bad
            films += 1
            name = film_id(film["path_in_repo"])
            shutil.copyfile(source, out / f"{part}_images" / f"{name}.jpg")
            study = film_id(film["group"])
            rows += [[study, study, name, "rad1", LABEL, *(f"{v:.4f}" for v in box)] for box in boxes]
        with open(out / "annotations" / f"{part}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(rows)
        counts[part] = {"films": films, "boxes": len(rows), "labels_left_out": left_out}
    print(json.dumps(counts))


def network(config):
    """torchvision's RetinaNet on ResNet-18 with live norms; the input is taken as it is."""
    import torch
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=torch.nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    size = config["model"]["input"]
    sides = sorted([size["height_px"], size["width_px"]])
    norm = config["model"]["normalisation"]
    return RetinaNet(
        backbone, CLASSES, min_size=sides[0], max_size=sides[1], image_mean=norm["mean"], image_std=norm["std"]
    )


def initial(args):
    import torch
    from safetensors.torch import save_file

    config = tomllib.loads(Path(args.config).read_text())
    torch.manual_seed(config["seed"])
    state = network(config).state_dict()
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in state.items() if not k.endswith("num_batches_tracked")}, args.out)


class Films:
    """Films of one part, letterboxed to the input at the top left."""

    def __init__(self, root, part, size):
        self.size, self.boxes = size, {}
        with open(root / "annotations" / f"{part}.csv", newline="") as file:
            for row in csv.DictReader(file):
                box = [float(row[key]) for key in ("xmin", "ymin", "xmax", "ymax")]
                self.boxes.setdefault(row["image_id"], []).append(box)
        self.names = sorted(self.boxes)
        self.folder = root / f"{part}_images"

    def item(self, name, flip):
        import numpy
        import torch
        from PIL import Image

        film = Image.open(self.folder / f"{name}.jpg").convert("L")
        scale = min(self.size["width_px"] / film.width, self.size["height_px"] / film.height)
        width, height = round(film.width * scale), round(film.height * scale)
        pixels = numpy.zeros((self.size["height_px"], self.size["width_px"]), numpy.float32)
        resized = film.resize((width, height), Image.Resampling.BILINEAR)
        pixels[:height, :width] = numpy.asarray(resized, numpy.float32) / 255
        factor = torch.tensor([width / film.width, height / film.height] * 2)
        boxes = torch.tensor(self.boxes[name]) * factor
        boxes = boxes[((boxes[:, 2] - boxes[:, 0]) > 1) & ((boxes[:, 3] - boxes[:, 1]) > 1)]
        if flip:
            pixels[:, :width] = pixels[:, :width][:, ::-1].copy()
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        image = torch.from_numpy(pixels).repeat(3, 1, 1)
        target = {"boxes": boxes, "labels": torch.full((len(boxes),), VERTEBRA)}
        return image, target, factor


def rate(config, step):
    """Factor of the learning rate at `step`, from 0: linear warm-up, then half a cosine."""
    schedule = config["schedule"]
    warmup, total = schedule["warmup_steps"], schedule["total_steps"]
    last = schedule["decay"]["cosine"]["final_factor"]
    if step < warmup:
        first = schedule["warmup_start"]
        return first + (1 - first) * step / warmup
    return last + (1 - last) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def train(args):
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(args.threads)
    config = tomllib.loads(Path(args.config).read_text())
    if args.steps:
        config["schedule"] |= {"total_steps": args.steps, "warmup_steps": args.steps // 10}
    torch.manual_seed(args.seed)
    order = random.Random(args.seed)
    root, size = Path(args.set), config["model"]["input"]
    films = Films(root, "train", size)
    model = network(config)
    missing, unexpected = model.load_state_dict(load_file(args.initial), strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), missing[:5]
    model.train()
    optimiser, adam = config["optimiser"], config["optimiser"]["rule"]["adamw"]
    stepper = torch.optim.AdamW(
        model.parameters(),
        optimiser["lr"],
        betas=(adam["beta1"], adam["beta2"]),
        eps=adam["epsilon"],
        weight_decay=optimiser["weight_decay"],
    )
    clip, batch_size = config["training"]["clip"]["global_norm"], config["training"]["batch_size"]
    deck, curve, began = [], [], time.perf_counter()
    for step in range(config["schedule"]["total_steps"]):
        batch = []
        while len(batch) < batch_size:
            if not deck:
                deck = order.sample(films.names, len(films.names))
            batch.append(films.item(deck.pop(), order.random() < config["augment"]["flip"]))
        for group in stepper.param_groups:
            group["lr"] = optimiser["lr"] * rate(config, step)
        losses = model([image for image, _, _ in batch], [target for _, target, _ in batch])
        loss = sum(losses.values())
        stepper.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        stepper.step()
        curve.append([step + 1, loss.item()])
        if (step + 1) % 20 == 0:
            print(f"step {step + 1}: loss {loss.item():.4f}, {time.perf_counter() - began:.0f} s", flush=True)
    seconds = time.perf_counter() - began

    model.eval()
    held_out = Films(root, "test", size)
    found = []
    with torch.inference_mode():
        for name in held_out.names:
            image, _, factor = held_out.item(name, False)
            result = model([image])[0]
            for box, score, label in zip(result["boxes"] / factor, result["scores"], result["labels"]):
                if label == VERTEBRA:
                    x1, y1, x2, y2 = box.tolist()
                    found.append([name, score.item(), x1, y1, x2, y2])
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "torchvision.json").write_text(json.dumps({"seconds": seconds, "curve": curve, "found": found}))
    print(json.dumps({"seconds": seconds, "last_loss": curve[-1][1]}))


def coco(args):
    """Truth and boxes of both sides in COCO's form, for one evaluator."""
    root = Path(args.set)
    films = Films(root, "test", None)
    number = {name: index + 1 for index, name in enumerate(films.names)}

    def xywh(x1, y1, x2, y2):
        return [x1, y1, x2 - x1, y2 - y1]

    truth = [(name, xywh(*box)) for name in films.names for box in films.boxes[name]]
    annotations = [
        {"id": i + 1, "image_id": number[name], "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, (name, box) in enumerate(truth)
    ]
    images = [{"id": index, "width": 0, "height": 0, "file_name": f"{name}.jpg"} for name, index in number.items()]
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": LABEL}]}
    out = Path(args.out)
    (out / "truth.json").write_text(json.dumps(document))

    def write(name, found):
        results = [
            {"image_id": number[film], "category_id": 1, "score": score, "bbox": xywh(*box)}
            for film, score, *box in found
        ]
        (out / f"{name}.coco.json").write_text(json.dumps(results))

    write("torchvision", json.loads((out / "torchvision.json").read_text())["found"])
    for records in args.records:
        found = []
        for line in Path(records).read_text().splitlines():
            film = json.loads(line)
            found += [[film["image"], b["score"], *b["xyxy"]] for b in film["boxes_before_gate"] if b["label"] == LABEL]
        write(Path(records).parent.name, found)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("prepare")
    command.add_argument("--films", required=True)
    command.add_argument("--list", required=True)
    command.add_argument("--out", required=True)
    command.set_defaults(run=prepare)
    command = commands.add_parser("initial")
    command.add_argument("--config", required=True)
    command.add_argument("--out", required=True)
    command.set_defaults(run=initial)
    command = commands.add_parser("train")
    command.add_argument("--config", required=True)
    command.add_argument("--set", required=True)
    command.add_argument("--initial", required=True)
    command.add_argument("--out", required=True)
    command.add_argument("--steps", type=int)
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--threads", type=int, default=2)
    command.set_defaults(run=train)
    command = commands.add_parser("coco")
    command.add_argument("--set", required=True)
    command.add_argument("--out", required=True)
    command.add_argument("records", nargs="*")
    command.set_defaults(run=coco)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
