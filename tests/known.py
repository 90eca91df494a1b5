"""A random classifier whose vote probabilities are known, and evaluations of it to kill.

An image is one pixel x, and uniform noise in (-1/2, 1/2) is added to it: a draw is right, of class 0, where the sum is
above 1/2, which has probability x. So an attack of size eps leaves x - eps, and no more.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from smoothed.data.imageset import ImageSet
from smoothed.evaluation.correctness import ignore_progress
from smoothed.evaluation.paper_protocol.evaluate import PaperProtocol, evaluate_paper_protocol
from smoothed.evaluation.worst_case.evaluate import evaluate_worst_case
from smoothed.evaluation.worst_case.protocol import WorstCaseProtocol
from smoothed.smoothing.config import NoiseConfig, SmoothingConfig

# The deviation of uniform noise in (-1/2, 1/2).
SIGMA = 12**-0.5

UNIFORM = NoiseConfig(sigma=SIGMA, law="uniform")

QUICK = WorstCaseProtocol(
    SmoothingConfig(UNIFORM, num_samples=1), eps=0.2, steps=3, restarts=1, eot_samples=(1, 2), sweep_images=40,
    queries=4, selection_votes=5, resubmissions=(1, 2, 10),
)  # fmt: skip
"""A worst-case protocol under which all of `Threshold` is known."""

PAPER = PaperProtocol(num_samples=(1, 3), eps=0.2, steps=2, runs=3)


class Threshold(nn.Module):
    """Class 0 where the pixel is above a half."""

    def forward(self, inputs):
        score = inputs.flatten(1).mean(1) - 0.5
        return torch.stack([score, -score], 1) * 4


def pixels(*values):
    """A set of one-pixel images, all of class 0, of these values in 0..255."""
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1)
    return ImageSet("pixels", images, torch.zeros(len(values), dtype=torch.int64), ("bright", "dark"))


def quick(noise=UNIFORM, vote="prediction", num_samples=1, **options):
    """`QUICK` with another classifier or other options."""
    return replace(QUICK, smoothing=SmoothingConfig(noise, vote, num_samples), **options)


def measure(protocol, out=None, on_progress=ignore_progress):
    """The rows of either protocol on 150 images, as JSON values."""
    data = pixels(*range(100, 250))
    options = {"name": "threshold", "out": out, "on_progress": on_progress}
    if protocol == "worst-case":
        return evaluate_worst_case(Threshold(), data, QUICK, **options).to_json()
    result = evaluate_paper_protocol(Threshold(), data, PAPER, noises=[UNIFORM], **options)
    return [row.to_json() for row in result.rows]


if __name__ == "__main__":
    steps = int(sys.argv[3])

    def kill(_done, _total):
        global steps  # noqa: PLW0603
        steps -= 1
        if not steps:
            os.kill(os.getpid(), signal.SIGKILL)

    measure(sys.argv[1], Path(sys.argv[2]), kill)
