"""torchvision's networks of full size with random weights, saved, imported and run on a film by `spinexr`, beside torch's.

    python whole.py target/release/spinexr        (torch 2.11, torchvision 0.26, pillow)

Prints the rows of docs/parity.md.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image

PROGRAM = str(Path(sys.argv[1]).resolve())
WORK = Path(tempfile.mkdtemp(prefix="spinexr-whole-"))
torch.manual_seed(3)
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def spinexr(*args):
    done = subprocess.run([PROGRAM, "--quiet", "--json", *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def live_norms(model):
    """Statistics that differ from 0 and 1, so that a norm that is passed over shows."""
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(buffer, std=0.1)
        elif name.endswith("running_var"):
            torch.nn.init.uniform_(buffer, 0.8, 1.2)


def film(height, width):
    pixels = np.random.default_rng(1).integers(0, 256, (height, width), dtype=np.uint8)
    path = WORK / f"film{height}.png"
    Image.fromarray(pixels).save(path)
    return path, torch.from_numpy(pixels.astype(np.float32) / 255)[None].repeat(3, 1, 1)


def row(what, difference, tolerance):
    print(f"| {what} | {difference:.1e} | {tolerance:.0e} |", flush=True)
    assert difference <= tolerance


path, image = film(224, 224)
for name in ("densenet121", "densenet169", "densenet201"):
    model = getattr(torchvision.models, name)(num_classes=3).eval()
    live_norms(model)
    x = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        expected = model(x[None])[0].numpy()
    for form, how in (("zip", {}), ("legacy", {"_use_new_zipfile_serialization": False})):
        weights = WORK / f"{name}_{form}.pth"
        torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, weights, **how)
        bundle = WORK / f"{name}_{form}.spinexr"
        spinexr("model", "import", weights, "--arch", name, "--source", "torchvision", "--classes", "a,b,c", "-o", bundle)
        found = spinexr("predict", path, "--model", bundle)["films"][0]["logits"][f"{name}_{form}"]
        row(f"{name}, `.pth` ({form}) imported, `predict` to torch, logits (largest {np.abs(expected).max():.2f})",
            np.abs(np.array(found) - expected).max(), 2e-5)

path, image = film(256, 192)
model = torchvision.models.detection.retinanet_resnet50_fpn(
    weights=None, weights_backbone=None, num_classes=8, min_size=192, max_size=256,
    score_thresh=0.3, topk_candidates=1000, nms_thresh=0.5, detections_per_img=300).eval()
live_norms(model)
torch.nn.init.constant_(model.head.classification_head.cls_logits.bias, -1.5)
# The background's output is never trained; far down, torchvision gives no box of it either.
with torch.no_grad():
    model.head.classification_head.cls_logits.bias.view(9, 8)[:, 0] = -20
# Logits of -6 to 4: were they larger, the best scores would all be 1 and their order chance.
torch.nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.06)
with torch.no_grad():
    expected = model([image])[0]
torch.save(model.state_dict(), WORK / "retinanet.pth")
bundle = WORK / "retinanet.spinexr"
spinexr("model", "import", WORK / "retinanet.pth", "--arch", "retinanet_resnet50", "--source", "torchvision",
        "--input", "256x192", "-o", bundle)
record = spinexr("predict", path, "--model", bundle)["films"][0]
found = [b for b in record["boxes_before_gate"] if b["score"] > 0.3]
scores = np.array([b["score"] for b in found])
boxes = np.array([b["xyxy"] for b in found])
print(f"RetinaNet: {len(expected['scores'])} boxes by torch above 0.3, {len(found)} by predict", flush=True)
n = min(len(found), len(expected["scores"]), 50)
assert n > 5
row(f"retinanet_resnet50, `.pth` imported, `predict` to torchvision, scores of the best {n} boxes",
    np.abs(scores[:n] - expected["scores"][:n].numpy()).max(), 1e-4)
# Neighbours of nearly equal score may change places: each box to its nearest.
nearest = [np.abs(expected["boxes"].numpy() - box).max(axis=1).min() for box in boxes[:n]]
row(f"retinanet_resnet50, the same, places, px", max(nearest), 1e-2)
