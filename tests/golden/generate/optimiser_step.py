"""Losses before and after one plain SGD step from the golden state, by torchvision on PyTorch.

Weights, images and true boxes come from the cases' manifests beside this folder by the formula of README.md, so that a
case here is the training set-up of the case of that name. Written: ../optimiser_step/manifest.json. Each value is that
of single precision, beside it how far double precision lies from it.

    pip install torch==2.11.0 torchvision==0.26.0 numpy
    OMP_NUM_THREADS=1 python optimiser_step.py
"""

import copy
import json
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

GOLDEN = Path(__file__).resolve().parent.parent
U64 = (1 << 64) - 1


def unit(name, shape):
    """u in [0, 1) as a pure function of the name: splitmix64 from the FNV-1a hash, 24 bits."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & U64
    count = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)).reshape(shape)


def filled(name, shape, state):
    """The value of a state-dict entry."""
    one, tenth = np.float32(1), np.float32(0.1)
    signed = np.float32(2) * unit(name, shape) - one
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return one + np.float32(0.5) * unit(name, shape)
    if len(shape) >= 2:
        gains = [o["gain"] for o in state["overrides"] if o["contains"] in name]
        fan_in = int(np.prod(shape)) // shape[0]
        return signed * np.float32((gains or [state["gain"]])[0] * np.sqrt(3.0 / fan_in))
    return one + tenth * signed if name.endswith("weight") else tenth * signed


def fill(model, manifest):
    state = manifest["state"]
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == state["shapes"]
    total = 0.0
    for name, value in model.state_dict().items():
        numbers = filled(name, tuple(value.shape), state)
        total += float(np.abs(numbers.astype(np.float64)).sum())
        value.copy_(torch.from_numpy(np.asarray(numbers)))
    assert abs(total / state["abs_sum_f64"] - 1) < 1e-9, (total, state["abs_sum_f64"])
    return model


def manifest_of(case):
    return json.loads((GOLDEN / case / "manifest.json").read_text())


class ByIndex(BalancedPositiveNegativeSampler):
    """The first candidates by index in place of random ones."""

    def __call__(self, matches):
        drawn, torch.randperm = torch.randperm, lambda count, device=None: torch.arange(count, device=device)
        try:
            return super().__call__(matches)
        finally:
            torch.randperm = drawn


def densenet(case, model, batch_statistics):
    manifest = manifest_of(case)
    fill(model, manifest)
    image = torch.from_numpy(unit(manifest["train"]["input"], (2, 3, 64, 64)))
    labels = torch.tensor(manifest["inputs"]["targets"]["value"])

    def losses(model, dtype):
        model.train(batch_statistics)
        return {"bce": binary_cross_entropy_with_logits(model(image.to(dtype)), labels.to(dtype))}

    return model, losses


def detector(case, model):
    manifest = manifest_of(case)
    fill(model, manifest)
    images = [torch.from_numpy(unit(name, (3, 128, 160))) for name in manifest["inputs"]]

    def losses(model, dtype):
        model.train()
        targets = [
            {"boxes": torch.tensor(t["boxes"], dtype=dtype), "labels": torch.tensor(t["labels"])}
            for t in manifest["targets"]
        ]
        return model([image.to(dtype) for image in images], targets)

    return model, losses


def retinanet():
    case = "retinanet_resnet50_fpn"
    body = torchvision.models.resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    backbone = _resnet_fpn_extractor(
        body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
    )
    size = {key: manifest_of(case)["config"][key] for key in ("min_size", "max_size")}
    return detector(case, RetinaNet(backbone, 8, **size))


def faster_rcnn():
    case = "fasterrcnn_resnet50_fpn"
    config = manifest_of(case)["config"]
    body = torchvision.models.resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    model = FasterRCNN(_resnet_fpn_extractor(body, 5), num_classes=8, **config)
    model.rpn.fg_bg_sampler = ByIndex(config["rpn_batch_size_per_image"], config["rpn_positive_fraction"])
    model.roi_heads.fg_bg_sampler = ByIndex(config["box_batch_size_per_image"], config["box_positive_fraction"])
    return detector(case, model)


def step(model, losses, dtype, learning_rate):
    """Losses before and after the step, and the squared length of the gradient."""
    model = copy.deepcopy(model).to(dtype)
    trained = [p for p in model.parameters() if p.requires_grad]
    before = losses(model, dtype)
    sum(before.values()).backward()
    squared = sum(float(p.grad.double().pow(2).sum()) for p in trained)
    torch.optim.SGD(trained, lr=learning_rate).step()
    with torch.no_grad():
        after = losses(model, dtype)
    numbers = lambda values: {name: value.item() for name, value in values.items()}
    return numbers(before), numbers(after), squared


def run(setup, learning_rate):
    single, double = (step(*setup, dtype, learning_rate) for dtype in (torch.float32, torch.float64))
    entry = {"learning_rate": learning_rate}
    for index, phase in enumerate(("before", "after")):
        entry[phase] = {
            name: {"value": value, "abs_noise": abs(double[index][name] - value)}
            for name, value in single[index].items()
        }
    total = lambda phase: sum(loss["value"] for loss in entry[phase].values())
    print(entry, "gradient²", single[2], "total", total("before"), "->", total("after"), flush=True)
    return entry


def main():
    tiny = dict(growth_rate=8, block_config=(2, 2, 2, 2), num_init_features=16, bn_size=2, num_classes=7)
    cases = {}
    for name, build in (
        ("densenet121", lambda: torchvision.models.densenet121(weights=None, num_classes=7)),
        ("densenet_tiny", lambda: torchvision.models.DenseNet(**tiny)),
    ):
        for norms in ("batch_statistics", "frozen_norms"):
            case = f"{name}/{norms}"
            cases[case] = run(densenet(name, build(), norms == "batch_statistics"), RATES[case])
    for case, build in (("retinanet_resnet50_fpn", retinanet), ("fasterrcnn_resnet50_fpn", faster_rcnn)):
        cases[case] = run(build(), RATES[case])
    software = {"torch": torch.__version__.split("+")[0], "torchvision": torchvision.__version__.split("+")[0]}
    folder = GOLDEN / "optimiser_step"
    folder.mkdir(exist_ok=True)
    text = json.dumps({"software": software, "cases": cases}, indent=1)
    (folder / "manifest.json").write_text(text + "\n")


# Large enough that a step takes a hundredth or more off the loss, so that a wrong gradient shows; small enough that
# rounding, which the step carries from the gradient into every weight, does not.
RATES = {
    "densenet121/batch_statistics": 1e-4,
    "densenet121/frozen_norms": 2e-3,
    "densenet_tiny/batch_statistics": 1e-2,
    "densenet_tiny/frozen_norms": 5e-2,
    "retinanet_resnet50_fpn": 1e-6,
    "fasterrcnn_resnet50_fpn": 5e-6,
}

if __name__ == "__main__":
    main()
