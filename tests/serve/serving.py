"""A service in a process of its own, for tests that send it signals, and plain requests to it."""

import http.client
import json
import os
import socket
import time
from contextlib import contextmanager

from launching import Started, command

MODULE = """
import time

import torch
from torch import nn


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))

    def forward(self, inputs):
        time.sleep(0.02)
        return self.layers(inputs)


def network():
    torch.manual_seed(0)
    return Slow().eval()


def data():
    return torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
"""
"""A network whose passes take time, so that requests are in flight when a signal comes."""


def serve_in(folder, *options):
    """What `smoothed serve` does in a folder with `MODULE`."""
    os.chdir(folder)
    command("serve", "--model", "slow_net:network", "--data", "slow_net:data", "--sigma", "0.1", *options)


class Served:
    """A running service and where it listens."""

    def __init__(self, folder, *options, port=None):
        folder.joinpath("slow_net.py").write_text(MODULE)
        self.port = port or free_port()
        self.started = Started(serve_in, str(folder), "--port", str(self.port), "--chunk-size", "8", *options)

    def await_ready(self):
        for _ in range(2000):
            assert self.started.running, self.started.end().stderr
            try:
                if self.get("/v1/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError("the service was not ready in time")

    def get(self, path):
        return self._ask("GET", path)

    def post(self, path, **fields):
        return self._ask("POST", path, json.dumps(fields), {"Content-Type": "application/json"})

    def signal(self, number):
        (process,) = self.started.processes
        os.kill(process.pid, number)

    def _ask(self, *request):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(*request)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@contextmanager
def served_in(folder, *options, port=None):
    """A service that is ready; it is killed at the end of the block if it still runs."""
    served = Served(folder, *options, port=port)
    try:
        served.await_ready()
        yield served
    finally:
        if served.started.running:
            served.started.kill()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
