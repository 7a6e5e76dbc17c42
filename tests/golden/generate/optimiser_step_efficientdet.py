"""Losses before and after one plain SGD step from the golden state of both EfficientDet cases, by effdet on PyTorch.

As optimiser_step.py, from which the fill formula comes; written: ../optimiser_step/efficientdet.json.

    pip install torch==2.11.0 torchvision==0.26.0 timm==1.0.31 effdet==0.4.1 numpy
    OMP_NUM_THREADS=1 python optimiser_step_efficientdet.py
"""

import json
from importlib.metadata import version

import numpy as np
import torch
from effdet import DetBenchTrain, EfficientDet, get_efficientdet_config
from effdet.loss import DetectionLoss

import optimiser_step as base

# Takes a hundredth or more off the loss; see RATES there.
LEARNING_RATE = 5e-3


class ByFormula:
    """optimiser_step's formula; weights of a pyramid's node are filled as those of norms."""

    original = staticmethod(base.filled)

    @classmethod
    def filled(cls, name, shape, state):
        value = cls.original(name, shape, state)
        if name.endswith("edge_weights"):
            value = np.float32(1) + value
        return value


base.filled = ByFormula.filled


def setup(case):
    manifest = base.manifest_of(case)
    config = get_efficientdet_config(case)
    config.num_classes, config.image_size, config.jit_loss = 7, [128, 128], False
    model = EfficientDet(config, pretrained_backbone=False).eval()
    base.fill(model, manifest)
    (name, image), = manifest["inputs"].items()
    image = torch.from_numpy(base.unit(name, tuple(image["shape"])))
    truth = manifest["targets"]
    labels = DetBenchTrain(model).anchor_labeler.batch_label_anchors(
        [torch.tensor(t["bbox_yxyx"]) for t in truth], [torch.tensor(t["cls"], dtype=torch.float32) for t in truth]
    )

    def losses(model, dtype):
        # effdet casts outputs to single precision before its losses; the double run must not.
        keep = torch.Tensor.float
        if dtype == torch.float64:
            torch.Tensor.float = lambda self: self.double()
        try:
            classes, boxes = model(image.to(dtype))
            targets = labels[0], [t.to(dtype) for t in labels[1]], labels[2].to(dtype)
            _, class_loss, box_loss = DetectionLoss(config)(classes, boxes, *targets)
        finally:
            torch.Tensor.float = keep
        return {"class_loss": class_loss, "weighted_box_loss": config.box_loss_weight * box_loss}

    return model, losses


def main():
    cases = {case: base.run(setup(case), LEARNING_RATE) for case in ("tf_efficientdet_d0", "efficientdet_d0")}
    software = {package: version(package).split("+")[0] for package in ("torch", "timm", "effdet")}
    text = json.dumps({"software": software, "cases": cases}, indent=1)
    (base.GOLDEN / "optimiser_step" / "efficientdet.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
