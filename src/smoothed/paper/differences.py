"""The difference between our accuracy and the paper's, with an interval from the deviations of both."""

import math
from dataclasses import dataclass
from typing import Any, Self

from smoothed.evaluation.results import Z

TEST_IMAGES = 10_000
"""Size of the test sets of CIFAR-10 and CIFAR-100, on which the paper measured."""


@dataclass(frozen=True)
class PublishedDifference:
    """Our accuracy minus the paper's, in percentage points.

    Attributes:
        points: the difference.
        interval: its 95 % interval, by the normal approximation. The variance is the sum of: our variance over runs,
            divided by the number of runs; the same of the paper, where it prints a deviation; and the variance from our
            choice of images, p (1 - p) / n times the share of the test set that was left out. With other test images
            than the paper's, the last term is that of two independent samples. What networks of other seeds would give
            is not included.
        assumed: whether the paper prints no deviation, so that 0 took its place.
    """

    points: float
    interval: tuple[float, float]
    assumed: bool

    @classmethod
    def of(
        cls,
        ours: float,
        published: float,
        *,
        std: float,
        runs: int,
        images: int,
        published_std: float | None,
        published_runs: int = 5,
        same_images: bool = True,
    ) -> Self:
        """Compare two accuracies.

        Args:
            ours: our accuracy, in [0, 1].
            published: the paper's, in percent.
            std: our standard deviation over runs, in [0, 1].
            runs: number of our runs.
            images: number of our test images.
            published_std: the paper's standard deviation over runs, in percent; None where it prints none.
            published_runs: number of the paper's runs.
            same_images: whether our images are part of those of the paper.
        """
        theirs = published / 100
        variance = std**2 / runs + ((published_std or 0.0) / 100) ** 2 / published_runs
        # Two successes and two failures more keep the variance above 0 where all images have the same outcome.
        smoothed = ours if 0 < ours < 1 else (ours * images + 2) / (images + 4)
        of_images = smoothed * (1 - smoothed) / images
        if same_images:
            variance += of_images * max(0.0, 1 - images / TEST_IMAGES)
        else:
            variance += of_images + theirs * (1 - theirs) / TEST_IMAGES
        points, half = 100 * ours - published, 100 * Z * math.sqrt(variance)
        return cls(points, (points - half, points + half), published_std is None)

    def to_json(self) -> dict[str, Any]:
        """The difference as JSON values."""
        return {"points": self.points, "interval": list(self.interval), "paper_deviation_assumed": self.assumed}
