"""One small result of each kind, in which every field of its kind is filled."""

import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import nn

import known
import smoothed

KINDS = ("attack", "certify", "check", "evaluate", "examples", "sweep", "train", "worst-case")

# Twelve pixels, and as many of a dark class.
VALUES = torch.linspace(0.3, 0.95, 12)


class Normalized(nn.Module):
    """`known.Threshold` behind a layer that normalises, so that deviations have both units."""

    def __init__(self):
        super().__init__()
        self.normalize = smoothed.Normalize((0.5,), (0.25,))
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, inputs):
        score = self.normalize(inputs).flatten(1).mean(1) * self.scale
        return torch.stack([score, -score], 1)


def data():
    """Images (12, 1, 1, 1), all of class 0 (bright), and names for both classes."""
    return known.pixels(*(255 * VALUES).round().int().tolist())


def classifier(**options):
    """A vote of five draws of `Normalized` under Gaussian noise of deviation 0.25."""
    return smoothed.Smoothed(Normalized(), smoothed.Gaussian(0.25), **{"num_samples": 5, "pack_draws": True, **options})


def _examples():
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "examples.safetensors"
        smoothed.attack(classifier(), data(), attack="fgsm", examples=file)
        return smoothed.evaluate_examples(classifier(), file, data(), votes_per_image=2, keep_images=3)


def _train():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    images = torch.rand(24, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    options = {"recipe": "nfgsm", "epochs": 2, "batch_size": 8, "augmentation": "none"}
    return smoothed.train(network, (images, torch.arange(24) % 2), **options).result


_MAKERS = {
    "attack": lambda: smoothed.attack(classifier(), data(), eps=0.1, steps=2),
    "certify": lambda: smoothed.certify(classifier(), data(), radii=(0.0, 0.1), selection_samples=5, num_samples=40),
    "check": lambda: smoothed.check(classifier(), data(), eps=0.1, steps=1, eot_samples=2, images=None, keep_images=3),
    "evaluate": lambda: smoothed.evaluate(
        classifier(vote="soft"), data(), eps=0.1, steps=2, num_samples=(1, 5), runs=2, keep_images=3
    ),
    "examples": _examples,
    "sweep": lambda: smoothed.sweep(
        Normalized(), data(), sigmas=(0.0, 0.1, 0.25), votes=("soft", "prediction"), num_samples=(1, 4), eps=0.1,
        steps=2,
    ),
    "train": _train,
    "worst-case": lambda: smoothed.worst_case(
        classifier(), data(), eps=0.1, steps=2, restarts=1, eot_samples=(1, 2), queries=3, resubmissions=(1, 2),
        certified=True, keep_images=3, targets=1, selection_votes=2,
    ),
}  # fmt: skip


@cache
def small_result(kind):
    """The result of that kind; it is computed once."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _MAKERS[kind]()
