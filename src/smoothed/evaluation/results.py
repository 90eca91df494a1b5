"""Accuracies with their intervals, and differences between accuracies on the same images, for all evaluations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from smoothed.utils.intervals import interval, mean_and_deviation

# Half-width of a 95 % normal interval, in standard errors.
Z = 1.96


@dataclass(frozen=True)
class Accuracy:
    """An accuracy over images, in [0, 1].

    Attributes:
        mean: mean over runs.
        interval: 95 % Wilson interval over images. It treats each image as right or wrong; for shares of right votes,
            whose variance is at most as large, it is conservative.
        std: sample standard deviation over runs; 0 for a single run.
    """

    mean: float
    interval: tuple[float, float]
    std: float

    @classmethod
    def of_shares(cls, runs: Sequence[Tensor]) -> Self:
        """Accuracy from the probability of a correct classification of each image, (N,), in each run."""
        mean, deviation = mean_and_deviation([float(shares.double().mean()) for shares in runs])
        images = len(runs[0])
        return cls(mean, interval(min(max(mean, 0.0), 1.0) * images, images), deviation)


def paired_gain(before: Tensor, after: Tensor) -> tuple[float, tuple[float, float]]:
    """Mean of `before - after`, (N,) each, and its 95 % interval by the normal approximation."""
    mean, deviation = mean_and_deviation((before - after).double().tolist())
    half_width = Z * deviation / math.sqrt(len(before))
    return mean, (mean - half_width, mean + half_width)
