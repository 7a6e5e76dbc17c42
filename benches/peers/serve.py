"""The Python side of `cargo xtask bench-serve`: films in over HTTP, a probability out, with FastAPI and PyTorch.

`films` says which films both sides can read; `weights` makes the one classifier of both; `serve` answers `POST /films`
with the film's probability.

The service is the fastest of the usual forms in one process: bodies are received by uvicorn with uvloop and httptools,
films are decoded on a pool of threads, and one thread runs the network on all films that are ready then, up to a
batch. It never waits for a batch to fill. Nothing is written to the disk.

Films are resized as 8-bit pictures, which is usual and fastest. Pillow rounds them between its two passes and after;
`POST /films?rounded=false` does without, and gives what a resize in floating point gives.
"""

import argparse
import asyncio
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import torch
from peers import display_pixels
from PIL import Image
from torchvision.models import densenet121
from torchvision.transforms.functional import normalize, to_tensor

SIDE_PX = 224
SEED = 1
# Of the logits on the films that the classifier is scaled by.
SPREAD = 1.0


def prepared(film, rounded=True):
    """A film's file, or what reads like one, as the network's input: [3, H, W]."""
    pixels = display_pixels(film)
    picture = Image.fromarray(pixels if rounded else pixels.astype(np.float32))
    resized = picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
    image = to_tensor(resized) if rounded else torch.from_numpy(np.array(resized))[None] / 255
    return normalize(image.repeat(3, 1, 1), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def is_readable(film):
    """Whether pydicom reads the window: VinDr's films, and so synthetic ones, have a comma after some numbers."""
    return not isinstance(pydicom.dcmread(film, stop_before_pixels=True).get("WindowCenter"), str)


def make_weights(films, out):
    """A classifier of random weights whose norms have seen some films, and whose logits differ between them.

    Without the latter all probabilities would be nearly one, and comparing them would show nothing.
    """
    torch.manual_seed(SEED)
    model = densenet121(num_classes=1)
    images = torch.stack([prepared(film) for film in films])
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what it has seen
    with torch.inference_mode():
        model.train()(images)
        logits = model.eval()(images)
        scale = SPREAD / logits.std()
        model.classifier.weight.mul_(scale)
        model.classifier.bias.sub_(logits.mean()).mul_(scale)
    torch.save(model.state_dict(), out)


class Classifier:
    """The network behind a queue: whoever asks waits, and those who wait are answered together."""

    def __init__(self, state, threads, batch):
        torch.set_num_threads(threads)
        self.batch = batch
        self.model = densenet121(num_classes=1)
        self.model.load_state_dict(torch.load(state))
        self.model.eval()
        self.decoders = ThreadPoolExecutor(threads)
        self.runner = ThreadPoolExecutor(1)
        self.ready = asyncio.Queue()

    async def probability(self, body, rounded):
        loop = asyncio.get_running_loop()
        image = await loop.run_in_executor(self.decoders, prepared, BytesIO(body), rounded)
        answer = loop.create_future()
        await self.ready.put((image, answer))
        return await answer

    def run(self, images):
        with torch.inference_mode():
            return torch.sigmoid(self.model(torch.stack(images)))[:, 0].tolist()

    async def work(self):
        loop = asyncio.get_running_loop()
        while True:
            taken = [await self.ready.get()]
            while len(taken) < self.batch and not self.ready.empty():
                taken.append(self.ready.get_nowait())
            images, answers = zip(*taken, strict=True)
            try:
                probabilities = await loop.run_in_executor(self.runner, self.run, images)
            except Exception as error:
                for answer in answers:
                    answer.set_exception(error)
                continue
            for answer, probability in zip(answers, probabilities, strict=True):
                answer.set_result(probability)


def application(state, threads, batch):
    from fastapi import FastAPI, Request

    @asynccontextmanager
    async def lifespan(app):
        app.state.classifier = Classifier(state, threads, batch)
        work = asyncio.create_task(app.state.classifier.work())
        yield
        work.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/films")
    async def films(request: Request, rounded: bool = True):
        return {"probability": await app.state.classifier.probability(await request.body(), rounded)}

    return app


def serve(state, threads, batch):
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    host, port = listener.getsockname()
    # As `spinexr serve --json` does. Who connects before the network is loaded waits for it.
    print(json.dumps({"http": f"{host}:{port}"}), flush=True)
    app = application(state, threads, batch)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    readable = commands.add_parser("films", help="print the films of a folder that pydicom reads, a JSON list")
    readable.add_argument("folder", type=Path)
    weights = commands.add_parser("weights", help="make the classifier of both sides")
    weights.add_argument("out", type=Path)
    weights.add_argument("films", type=Path, nargs="+")
    service = commands.add_parser("serve", help="answer until SIGTERM")
    service.add_argument("state", type=Path)
    service.add_argument("--threads", type=int, default=os.cpu_count())
    service.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    if args.command == "films":
        print(json.dumps([str(film) for film in sorted(args.folder.iterdir()) if is_readable(film)]))
    elif args.command == "weights":
        make_weights(args.films, args.out)
    else:
        serve(args.state, args.threads, args.batch)


if __name__ == "__main__":
    main()
