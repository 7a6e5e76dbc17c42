"""Writes the files of this folder: small state dicts as PyTorch, NumPy and an attacker write them.

    python make.py        (torch 2.11, numpy 2.4)

Every float tensor holds (i - 3) / 8 at row-major index i, which is exact in every element type.
"""
import collections
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent


def values(*shape, dtype=torch.float32):
    n = int(np.prod(shape))
    return ((torch.arange(n, dtype=torch.float64) - 3) / 8).reshape(shape).to(dtype)


def state(prefix=""):
    entries = collections.OrderedDict()
    entries[prefix + "conv.weight"] = values(2, 3, 2, 2)
    entries[prefix + "norm.weight"] = values(5, dtype=torch.float16)
    entries[prefix + "norm.bias"] = values(5, dtype=torch.bfloat16)
    entries[prefix + "norm.running_mean"] = values(5, dtype=torch.float64)
    entries[prefix + "norm.num_batches_tracked"] = torch.tensor(7)
    # Views: the transpose of a matrix, and the end of a longer storage.
    entries[prefix + "view.transposed"] = values(2, 3).t().contiguous().t()
    entries[prefix + "view.offset"] = torch.cat([torch.full((4,), 9.0), values(3)])[4:]
    entries[prefix + "scalar"] = values(1).reshape(())
    entries[prefix + "parameter"] = torch.nn.Parameter(values(2, 2))
    entries._metadata = {"": {"version": 1}}
    return entries


torch.save(state(), HERE / "plain.pth")
torch.save({"epoch": 3, "best": 0.5, "state_dict": state("module.")}, HERE / "wrapped.pt")
torch.save({"model": state(), "note": None}, HERE / "legacy.pth", _use_new_zipfile_serialization=False)

arrays = {k: v.detach().to(torch.float64 if "mean" in k else torch.float32).numpy()
          for k, v in state().items() if "num_batches" not in k}
arrays["view.transposed"] = np.asfortranarray(arrays["view.transposed"])
detectron2 = {"model": arrays, "__author__": "nobody", "matching_heuristics": True}
for protocol in (2, 4, 5):
    with open(HERE / f"arrays{protocol}.pkl", "wb") as f:
        pickle.dump(detectron2, f, protocol=protocol)


class Harm:
    def __reduce__(self):
        return os.system, ("touch /tmp/spinexr-was-harmed",)


torch.save({"state_dict": state(), "extra": Harm()}, HERE / "harm.pth")
with open(HERE / "harm.pkl", "wb") as f:
    pickle.dump({"model": arrays, "extra": Harm()}, f, protocol=4)
torch.save(torch.nn.Linear(2, 2), HERE / "module.pth")
# An archive with zip's compression, which torch.save never has.
with zipfile.ZipFile(HERE / "plain.pth") as good, zipfile.ZipFile(HERE / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as bad:
    for name in good.namelist():
        bad.writestr(name, good.read(name))
