"""One film with the classifier, as a script would do it: `cold_start.py FILM STATE_DICT SIZES THREADS`."""

import json
import sys
from pathlib import Path

import torch
from PIL import Image
from peers import display_pixels
from torchvision.models import densenet121
from torchvision.transforms.functional import normalize, to_tensor

film, state, sizes, threads = sys.argv[1:]
side_px = json.loads(Path(sizes).read_text())["classifier_px"]
torch.set_num_threads(int(threads))
model = densenet121(num_classes=1)
model.load_state_dict(torch.load(state), strict=False)  # PyTorch's own counters are not among the weights
model.eval()
resized = Image.fromarray(display_pixels(film)).resize((side_px, side_px), Image.Resampling.BILINEAR)
image = to_tensor(resized).repeat(3, 1, 1)  # [3, H, W]
image = normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
with torch.inference_mode():
    print(torch.sigmoid(model(image[None])).item())
