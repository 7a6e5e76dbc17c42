"""Reference numbers of the kinds of detection errors, from tidecv, on boxes made of a formula.

Every class has truth and an image has fewer than 100 detections, so that the two implementations ask the same question.
`pip install tidecv==1.0.1 numpy`, then run this file; it writes `metrics_errors/manifest.json`.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

np.float = float  # tidecv uses the names that NumPy dropped
np.int = int
from tidecv import TIDE, Data  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
IMAGES, CLASSES = 40, 4


def boxes(seed):
    """Truth, and detections that are near it, of another class, doubled, or nowhere near."""
    draw = np.random.default_rng(seed)
    truth, found = [], []
    for image in range(IMAGES):
        for _ in range(draw.integers(0, 6)):
            x, y = draw.uniform(0, 300, 2)
            w, h = draw.uniform(20, 90, 2)
            cls = int(draw.integers(0, CLASSES))
            truth.append([image, cls, x, y, w, h])
            for _ in range(draw.integers(0, 3)):
                shift = draw.normal(0, draw.choice([0.03, 0.25]), 4) * [w, h, w, h]
                other = int(draw.integers(0, CLASSES)) if draw.random() < 0.2 else cls
                box = [x + shift[0], y + shift[1], max(5, w + shift[2]), max(5, h + shift[3])]
                found.append([image, other, *box, draw.random()])
        for _ in range(draw.integers(0, 3)):
            x, y = draw.uniform(0, 300, 2)
            w, h = draw.uniform(20, 90, 2)
            found.append([image, int(draw.integers(0, CLASSES)), x, y, w, h, draw.random() * 0.7])
    return truth, found


def main():
    cases = []
    for seed in range(3):
        truth, found = boxes(seed)
        truth = [[i, c, *(round(v, 3) for v in b)] for i, c, *b in truth]
        found = [[i, c, *(round(v, 3) for v in b), round(s, 6)] for i, c, *b, s in found]
        gt, dt = Data("gt"), Data("dt")
        for cls in range(CLASSES):
            gt.add_class(cls, str(cls))
            dt.add_class(cls, str(cls))
        for image in range(IMAGES):
            gt.add_image(image, str(image))
            dt.add_image(image, str(image))
        for image, cls, *box in truth:
            gt.add_ground_truth(image, cls, box)
        for image, cls, x, y, w, h, score in found:
            dt.add_detection(image, cls, score, [x, y, w, h])
        tide = TIDE()
        run = tide.evaluate(gt, dt, mode=TIDE.BOX)
        main_errors = run.fix_main_errors()
        special = run.fix_special_errors()
        cases.append(
            {
                "truth": truth,
                "detections": found,
                "ap50": run.ap,
                "delta": {kind.short_name: value for kind, value in main_errors.items()},
                "count": {kind.short_name: len(errors) for kind, errors in run.error_dict.items()},
                "special": {kind.short_name: value for kind, value in special.items()},
            }
        )
    manifest = {
        "case": "metrics_errors",
        "software": {"tidecv": version("tidecv"), "numpy": np.__version__},
        "images": IMAGES,
        "classes": CLASSES,
        "results": cases,
    }
    (ROOT / "metrics_errors" / "manifest.json").write_text(json.dumps(manifest) + "\n")


if __name__ == "__main__":
    main()
