"""Holds DICOM results to the predictions they were made of. Standard library only.

    python3 .ci/dicom_results_check.py target/dicom-results

1. Boxes that `read-sr` read back: class, confidence and place within half a pixel of `predictions.jsonl`, p(abnormal) and
   c* the same; tracking UIDs are UIDs, and each is one box of one film.
2. Each film as dcmtk shows it under its presentation state, and as we show it: at most one grey value apart.
3. Each secondary capture has a picture.
"""
import ast
import json
import re
import struct
import sys
from array import array
from pathlib import Path

OUT = Path(sys.argv[1])


def fail(message):
    sys.exit(f"dicom_results_check: {message}")


def check_reports():
    predictions = {}
    for folder in ("3d", "plain"):
        for line in (OUT / folder / "predictions.jsonl").read_text().splitlines():
            film = json.loads(line)
            predictions[folder, film["image"]] = film
    found = json.loads((OUT / "reports.json").read_text())
    if found["failed"] or len(found["reports"]) != len(predictions):
        fail(f"{len(found['reports'])} reports read of {len(predictions)}: {found['failed']}")
    boxes, empty, worst = 0, 0, 0.0
    tracked = {}
    for report in found["reports"]:
        path = Path(report["path"])
        film = predictions[path.parent.name, path.name.removesuffix(".sr.dcm")]
        (read,) = report["films"]
        if (read["p_abnormal"], read["threshold"]) != (film["p_abnormal"], film["threshold"]):
            fail(f"{path}: p(abnormal) or c* differ")
        wanted = [b for b in film["boxes"] if b["score"] >= read["least_confidence"]]
        wanted.sort(key=lambda b: -b["score"])
        if len(wanted) != len(read["boxes"]):
            fail(f"{path}: {len(read['boxes'])} boxes, {len(wanted)} predicted")
        for a, b in zip(read["boxes"], wanted):
            if (a["label"], a["confidence"]) != (b["label"], b["score"]):
                fail(f"{path}: {a} is not {b}")
            worst = max([worst] + [abs(p - q) for p, q in zip(a["xyxy"], b["xyxy"])])
            uid = a["tracking_uid"]
            if len(uid) > 64 or not re.fullmatch(r"2\.25\.[1-9][0-9]*", uid):
                fail(f"{path}: {uid} is no UID")
            # Both SOP classes of a film's report track the same box.
            thing = (read["sop_instance_uid"], tuple(a["xyxy"]), a["label"])
            if tracked.setdefault(uid, thing) != thing:
                fail(f"{path}: {uid} tracks two boxes")
        boxes += len(wanted)
        empty += not wanted
    if worst >= 0.5:
        fail(f"a box is {worst} px off")
    if boxes == 0:
        fail("no box in any report")
    print(f"read-sr: {len(found['reports'])} reports, {boxes} boxes at most {worst} px off, {empty} reports without a box;"
          f" {len(tracked)} tracking UIDs, each its own box")


def netpbm(path):
    """Width, height and pixels of a binary PGM or PPM of 8 bits."""
    data = path.read_bytes()
    head = re.match(rb"(P[56])\s(?:#[^\n]*\n)*\s*(\d+)\s(?:#[^\n]*\n)*(\d+)\s(?:#[^\n]*\n)*(\d+)\s", data)
    if not head or head.group(4) != b"255":
        fail(f"{path}: not an 8-bit picture")
    return int(head.group(2)), int(head.group(3)), data[head.end():]


def npy(path):
    """Height, width and values of a `.npy` of float32."""
    data = path.read_bytes()
    (length,) = struct.unpack("<H", data[8:10])
    header = ast.literal_eval(data[10:10 + length].decode())
    if header["descr"] != "<f4":
        fail(f"{path}: {header}")
    values = array("f")
    values.frombytes(data[10 + length:])
    return header["shape"], values


def check_displays():
    count, worst = 0, 0.0
    for path in sorted((OUT / "display").glob("*.pgm")):
        width, height, theirs = netpbm(path)
        shape, ours = npy(path.with_suffix(".npy"))
        if tuple(shape) != (height, width):
            fail(f"{path}: {width} x {height} px, ours {shape}")
        apart = max(abs(a - 255 * b) for a, b in zip(theirs, ours))
        worst = max(worst, apart)
        if apart > 1.001:
            fail(f"{path}: {apart:.2f} grey values apart")
        picture = netpbm(path.with_suffix(".ppm"))
        if not any(picture[2]):
            fail(f"{path}: the secondary capture is black")
        count += 1
    print(f"dcmp2pgm: {count} films under their presentation state, at most {worst:.2f} of 255 from our display")
    print(f"dcm2pnm: {count} secondary captures decoded")


check_reports()
check_displays()
