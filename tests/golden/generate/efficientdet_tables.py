"""Parameter counts, and names and shapes, of effdet's EfficientDet-D0 to D4 for seven classes.

Written: ../efficientdet_sizes.json. Of each network the number of parameters, the number of state-dict entries without
`num_batches_tracked`, and the FNV-1a hash (64 bits) of the lines "name [d0, d1, ...]\\n" of these, in order of the names.

    pip install torch==2.11.0 timm==1.0.31 effdet==0.4.1
    OMP_NUM_THREADS=1 python efficientdet_tables.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from effdet import EfficientDet, get_efficientdet_config


def fnv1a64(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & ((1 << 64) - 1)
    return value


def sizes(name):
    config = get_efficientdet_config(name)
    config.num_classes = 7
    with torch.device("meta"):
        model = EfficientDet(config, pretrained_backbone=False)
    shapes = {k: list(v.shape) for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "entries": len(shapes),
        "names_and_shapes": f"{fnv1a64(''.join(f'{k} {shapes[k]}' + chr(10) for k in sorted(shapes))):016x}",
        "image_px": list(config.image_size),
    }


names = [f"tf_efficientdet_d{i}" for i in range(5)] + [f"efficientdet_d{i}" for i in range(4)]
software = {package: version(package).split("+")[0] for package in ("torch", "timm", "effdet")}
table = {"software": software, "networks": {name: sizes(name) for name in names}}
path = Path(__file__).resolve().parent.parent / "efficientdet_sizes.json"
path.write_text(json.dumps(table, indent=1) + "\n")
