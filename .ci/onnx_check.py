"""Holds our ONNX files to onnx.checker and ONNX Runtime, on weights of the golden cases and of the demonstration bundle.

    python .ci/onnx_check.py target/release/spinexr

1. DenseNet-121 and RetinaNet-R50 with the golden cases' weights, through `model import` and `model export`: ONNX Runtime's
   outputs against torchvision's, which our own networks are held to by `cargo test --test parity`.
2. The models of the demonstration bundle and DenseNet-121 on a film: `predict` by our engine, by `--engine ort`, and
   ONNX Runtime from Python on the exported file agree.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(sys.argv[1]).resolve()
TOLERANCE = 1e-4


def unit(name, count):
    """`u` of the golden formula (tests/golden/README.md), 24 bits in [0, 1)."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float32) / np.float32(16777216)).astype(np.float32)


def fill(name, shape, state):
    u = unit(name, int(np.prod(shape)))
    signed = np.float32(2) * u - np.float32(1)
    last = name.rsplit(".", 1)[-1]
    hit = next((o for o in state["overrides"] if o["contains"] in name), {})
    if last == "running_var":
        values = np.float32(1) + np.float32(0.5) * u
    elif len(shape) >= 2:
        fan_in = np.prod(shape[1:])
        values = signed * np.float32(hit.get("abs") or hit.get("gain", state["gain"]) * (3 / fan_in) ** 0.5)
    elif last == "weight":
        values = np.float32(1) + np.float32(0.1) * signed
    else:
        values = np.float32(0.1) * signed
    return values.reshape(shape).astype(np.float32)


def case(name):
    folder = ROOT / "tests/golden" / name
    manifest = json.loads((folder / "manifest.json").read_text())
    state = manifest["state"]
    weights = {n: fill(n, s, state) for n, s in state["shapes"].items() if not n.endswith("num_batches_tracked")}
    total = sum(np.abs(w.astype(np.float64)).sum() for w in weights.values())
    assert abs(total / state["abs_sum_f64"] - 1) < 1e-9, (total, state["abs_sum_f64"])
    return manifest, weights, load_file(folder / "tensors.safetensors")


def spinexr(*args):
    done = subprocess.run([PROGRAM, "--quiet", "--json", *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"spinexr {' '.join(map(str, args))} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def session(path):
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path))
    properties = {p.key: p.value for p in model.metadata_props}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]), properties


def held(what, ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, (what, ours.shape, theirs.shape)
    difference = float(np.abs(ours - theirs).max()) if ours.size else 0.0
    print(f"| {what} | {difference:.1e} | {TOLERANCE:.0e} |", flush=True)
    assert difference <= TOLERANCE, (what, difference)


def normalised(pixels, properties):
    mean, std = (np.array(json.loads(properties[f"spinexr.{k}"]), np.float32) for k in ("mean", "std"))
    return ((pixels[None, None] - mean[None, :, None, None]) / std[None, :, None, None]).astype(np.float32)


def boxes_of(record):
    found = record["boxes_before_gate"]
    return [[b["score"], *b["xyxy"]] for b in found], [b["label"] for b in found]


def by_both_engines(name, film, bundle):
    """The film by our engine and by ONNX Runtime; the record of ours."""
    native = spinexr("predict", film, "--model", bundle)["films"][0]
    ort = spinexr("predict", film, "--model", bundle, "--engine", "ort")["films"][0]
    for model, logits in native["logits"].items():
        held(f"{name}: {model}, `--engine ort` to ours, logits", np.atleast_1d(ort["logits"][model]), np.atleast_1d(logits))
    (a, labels_a), (b, labels_b) = boxes_of(ort), boxes_of(native)
    if b:
        assert labels_a == labels_b, (labels_a, labels_b)
        held(f"{name}: `--engine ort` to ours, scores of {len(b)} boxes", [x[0] for x in a], [x[0] for x in b])
        size = max(native["height_px"], native["width_px"])
        held(f"{name}: `--engine ort` to ours, boxes, share of the film", np.array([x[1:] for x in a]) / size,
             np.array([x[1:] for x in b]) / size)
    return native


def main():
    work = Path(tempfile.mkdtemp(prefix="spinexr-onnx-"))
    print("| quantity | largest difference | tolerance |\n|---|---|---|")
    rng = np.random.default_rng(5)

    manifest, weights, expected = case("densenet121")
    save_file(weights, work / "d121.safetensors")
    classes = ",".join("abcdefg")
    spinexr("model", "import", work / "d121.safetensors", "--arch", "densenet121", "--source", "torchvision",
            "--classes", classes, "-o", work / "d121.spinexr")
    spinexr("model", "export", work / "d121.spinexr", "--format", "onnx", "-o", work / "onnx")
    run, properties = session(work / "onnx/d121.onnx")
    for size in (64, 224):
        images = unit(f"input_{size}", int(np.prod(manifest["inputs"][f"input_{size}"]["shape"])))
        images = images.reshape(manifest["inputs"][f"input_{size}"]["shape"])
        held(f"DenseNet-121, ONNX Runtime to torchvision, logits, {size}²", run.run(["logits"], {"images": images})[0],
             expected[f"{size}/logits"])
    pixels = rng.integers(0, 256, (224, 224), dtype=np.uint8)
    Image.fromarray(pixels).save(work / "film.png")
    native = by_both_engines("DenseNet-121", work / "film.png", work / "d121.spinexr")
    shown = normalised(pixels.astype(np.float32) / 255, properties)
    held("DenseNet-121, ONNX Runtime to `predict`, logits", run.run(["logits"], {"images": shown})[0][0],
         native["logits"]["d121"])
    # The same weights in the other form come back as they were.
    spinexr("model", "export", work / "d121.spinexr", "--format", "safetensors", "-o", work / "st")
    back = load_file(work / "st/d121.safetensors")
    assert back.keys() == weights.keys() and all((back[n] == weights[n]).all() for n in back)

    manifest, weights, expected = case("retinanet_resnet50_fpn")
    save_file(weights, work / "retina.safetensors")
    imported = spinexr("model", "import", work / "retina.safetensors", "--arch", "retinanet_resnet50", "--input",
                       "128x160", "-o", work / "retina.spinexr")
    assert imported["counts"]["reshaped"] == 2, imported["counts"]  # eight outputs, the background's dropped
    spinexr("model", "export", work / "retina.spinexr", "--format", "onnx", "-o", work / "onnx")
    run, properties = session(work / "onnx/retina.onnx")
    mean, std = (np.array(json.loads(properties[f"spinexr.{k}"]), np.float32) for k in ("mean", "std"))
    images = np.stack([unit(f"input_{n}", 3 * 128 * 160).reshape(3, 128, 160) for n in (9, 23)])
    images = (images - mean[None, :, None, None]) / std[None, :, None, None]
    logits, deltas = run.run(["class_logits", "box_deltas"], {"images": images.astype(np.float32)})
    held("RetinaNet-R50, ONNX Runtime to torchvision, class logits", logits, expected["eval/cls_logits"][:, :, 1:])
    held("RetinaNet-R50, ONNX Runtime to torchvision, box offsets", deltas, expected["eval/bbox_regression"])
    anchors = load_file(work / "onnx/retina.anchors.safetensors")["anchors"]
    held("RetinaNet-R50, anchors of the export to torchvision's", anchors, expected["eval/anchors"])
    Image.fromarray(rng.integers(0, 256, (128, 160), dtype=np.uint8)).save(work / "small.png")
    by_both_engines("RetinaNet-R50", work / "small.png", work / "retina.spinexr")

    # The demonstration bundle: small networks, trained; an input that is no multiple of 32.
    spinexr("synth", work / "films", "--studies", 2, "--test-studies", 2, "--size", 384, "--seed", 3, "--balanced")
    film = sorted((work / "films/test_images").iterdir())[0]
    demo = ROOT / "bundles/demo.spinexr"
    spinexr("model", "export", demo, "--format", "onnx", "-o", work / "demo")
    for path in sorted((work / "demo").glob("*.onnx")):
        session(path)
    record = by_both_engines("demonstration bundle", film, demo)
    assert record["boxes_before_gate"], "the film of the comparison wants a box"


main()
