"""Training runs of seconds, one after the other, in one process or in several; each writes how its runs ended."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from tiny_run import tiny_set

from smoothed.errors import SmoothedError
from smoothed.rng.rows import uniform_
from smoothed.training.config import TrainingConfig
from smoothed.training.loop import train
from smoothed.utils.distributed import leaving_process_group

SETTINGS = {
    "architecture": "custom",
    "injection": "pni-w",
    "attack": "pgd",
    "attack_steps": 2,
    "epochs": 2,
    "batch_size": 16,
    "lr": 0.05,
    "precision": "float32",
    "validation_attack_images": 8,
    "seed": 3,
}


class FixedStatistics(nn.BatchNorm2d):
    """A batch norm that uses its running statistics in training, too, so that its batch may be cut."""

    def train(self, mode=True):
        del mode
        return super().train(False)


def tiny_network(batch_norm=None):
    """A network without batch norm, so that its batch may be cut, and smooth, so that rounding stays small.

    With `batch_norm`, a class of such layers, there is one after the first convolution.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 8, 3, stride=2)
        layers = [first, nn.Tanh(), second, nn.Tanh(), nn.Flatten(), nn.Linear(8 * 7 * 7, 3)]
        return nn.Sequential(*layers[:1], *([] if batch_norm is None else [batch_norm(6)]), *layers[1:])


class Recorder:
    """An attack that changes nothing and writes down what a step has at hand: images, weights, randomness."""

    def __init__(self, network):
        self.network = network
        self.calls = []

    def __call__(self, model, inputs, labels, generator=None):
        del model
        drawn = uniform_(torch.empty_like(inputs), 0, 1, generator)
        self.calls.append({"inputs": inputs, "labels": labels, "drawn": drawn, "weight": self.network[0].weight})
        return inputs

    def save(self, path):
        flat = {f"{i}.{name}": tensor for i, call in enumerate(self.calls) for name, tensor in call.items()}
        save_file({name: tensor.detach().contiguous().clone() for name, tensor in flat.items()}, path)


def perform(folder, name, *, images=48, limits=None, record=False, last=None, norms=False, **settings):
    """One run, in `folder/name`; `limits` are the time limits of the processes. After step `last` it waits."""
    rank, network = int(os.environ.get("RANK", "0")), tiny_network(FixedStatistics if norms else None)
    recorder = Recorder(network) if record else None
    try:
        outcome = train(
            TrainingConfig(**{**SETTINGS, **settings}),
            tiny_set(images, 0),
            tiny_set(16, 1),
            folder / name,
            network=network,
            attack=recorder,
            time_limit=None if limits is None else limits[rank],
            save_every=0.0,
            on_step=lambda progress: signal.pause() if progress.step == last else None,
        )
        ended = {"finished": outcome.finished, "step": outcome.step}
    except SmoothedError as error:
        ended = {"error": str(error)}
    (folder / f"{name}.{rank}.json").write_text(json.dumps(ended))
    if recorder is not None:
        recorder.save(folder / f"{name}.{rank}.safetensors")


def main(folder, runs):
    torch.set_num_threads(1)
    with leaving_process_group():
        for run in runs:
            perform(folder, **run)
