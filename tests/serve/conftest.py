"""A tiny smoothed classifier behind the service, with noise on its input, its activations or its weights."""

import json
from dataclasses import replace

import pytest
import torch
from fastapi.testclient import TestClient

from smoothed import CNI, PNI, Gaussian, Smoothed, inject
from smoothed.serve.app import Service
from smoothed.serve.logs import RequestLog
from smoothed.serve.served import ServedModel
from smoothed.serve.settings import ServeSettings

SIGMA = 0.5


@pytest.fixture(params=["input", "activations", "weights"])
def noise_kind(request):
    return request.param


@pytest.fixture
def noisy_network(network, noise_kind):
    """The tiny network with one kind of noise inside, or with none."""
    if noise_kind == "activations":
        inject(network, activations=PNI(), strength=2.0)
    elif noise_kind == "weights":
        inject(network, weights=CNI(rank=2), strength=20.0)
    return network


@pytest.fixture
def serve_model(images, labels):
    """A function from a network to the served model, with the random images as bundled ones.

    Only with `fast` does it vote by `Fast`, which measures for some time before the first request.
    """

    def serve(network, *, fast=False, **options):
        classifier = Smoothed(network, Gaussian(SIGMA), num_samples=24)
        made = ServedModel.of(classifier, (images, labels), **options)
        return made if fast else replace(made, voter=network)

    return serve


@pytest.fixture
def served(network, serve_model):
    return serve_model(network)


class Running:
    """A service in this process, and a client of it."""

    def __init__(self, served, settings=None, **options):
        self.lines = []
        self.service = Service(served, settings or ServeSettings(), log=RequestLog(self.lines.append), **options)
        self.client = TestClient(self.service.app, raise_server_exceptions=False)

    @property
    def logged(self):
        return [json.loads(line) for line in self.lines]

    def vote(self, image=None, **fields):
        image = {"id": 0} if image is None else image
        return self.client.post("/v1/predict", json={"image": image, **fields})

    def events(self, path, **fields):
        """The events of a stream as (name, data)."""
        answer = self.client.post(path, json=fields)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        return parse_events(answer.text)


def parse_events(text):
    """Events of a stream as (name, data); the data of each is one line."""
    found = []
    for block in text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        assert name.startswith("event: ")
        assert data.startswith("data: ")
        found.append((name[7:], json.loads(data[6:])))
    return found


@pytest.fixture
def running(served):
    """A service of the tiny network with input noise, started."""
    made = Running(served)
    with made.client:
        yield made


@pytest.fixture
def run_service():
    """A function that starts a service with settings of one's own; it is stopped at the end of the test."""
    open_clients = []

    def run(served, settings=None, **options):
        made = Running(served, settings, **options)
        made.client.__enter__()
        open_clients.append(made.client)
        return made

    yield run
    for client in open_clients:
        client.__exit__(None, None, None)


@pytest.fixture
def png():
    """A function from a tensor (C, H, W) to the bytes of a PNG file."""
    from io import BytesIO

    from PIL import Image

    def encode(image, **options):
        file = BytesIO()
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).save(file, "png", **options)
        return file.getvalue()

    return encode


@pytest.fixture
def sharp_image():
    """An image whose pixels are whole numbers of 255ths, (3, 8, 8), so that a file of it loses nothing."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(256, (3, 8, 8), generator=generator) / 255
