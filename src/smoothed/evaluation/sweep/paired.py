"""Paired comparisons of settings on the same images: significant differences, and sets of settings that may be best.

Comparisons use the sign test: an image is a win for the setting that classifies it correctly in more runs, and images
on which both settings agree are ignored. Without a difference, wins and losses are equally likely. With a single run
this is the exact form of McNemar's test (1947).
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from jaxtyping import Bool, Int
from scipy.stats import binom, binomtest
from torch import Tensor

from smoothed.evaluation.results import paired_gain

LEVEL = 0.05
"""Significance level: a difference with a smaller p-value is significant."""


@dataclass(frozen=True)
class Comparison:
    """Comparison of two settings on the same images.

    Attributes:
        gain: accuracy of the first setting minus that of the second, in [-1, 1].
        gain_interval: 95 % interval of `gain`, by the normal approximation for paired differences over images.
        wins: number of images that the first setting classifies correctly in more runs.
        losses: number of images that the second setting classifies correctly in more runs.
        p: two-sided p-value of the sign test.
    """

    gain: float
    gain_interval: tuple[float, float]
    wins: int
    losses: int
    p: float

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at `LEVEL`."""
        return self.p < LEVEL

    @classmethod
    def of(cls, first: Bool[Tensor, "runs n"], second: Bool[Tensor, "runs n"]) -> Self:
        """Compare two settings by whether each image was classified correctly in each run."""
        first_runs, second_runs = first.sum(0), second.sum(0)
        gain, interval = paired_gain(first_runs.double() / len(first), second_runs.double() / len(second))
        wins, losses = int((first_runs > second_runs).sum()), int((first_runs < second_runs).sum())
        return cls(gain, interval, wins, losses, sign_test(wins, losses))

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return asdict(self)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of the sign test: the probability of an at least as uneven split; 1 if there is no split."""
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def may_be_best(right: Bool[Tensor, "settings runs n"], level: float = LEVEL) -> Bool[Tensor, " settings"]:
    """Confidence set of the best setting: it contains the best one with a probability of at least 1 - `level`.

    A setting is excluded if another one beats it in a one-sided sign test at `level` divided by the number of other
    settings (Bonferroni). The set stays valid although the best setting is searched on the same images.

    Args:
        right: whether each image was classified correctly in each run.
        level: one minus the confidence, in (0, 1).

    Returns:
        Whether each setting belongs to the set, (settings,) bool.
    """
    wins = _wins(right.sum(1), right.shape[1]).numpy()
    # The probability of at least that many wins if both settings were equally likely to win.
    p_values = binom.sf(wins - 1, wins + wins.T, 0.5)
    return torch.from_numpy(p_values.min(1) * max(1, len(right) - 1) >= level)


def _wins(counts: Int[Tensor, "s n"], runs: int) -> Int[Tensor, "s s"]:
    """Number of images that setting j classifies correctly in more runs than setting i, at (i, j)."""
    wins = torch.zeros(len(counts), len(counts))  # float32 holds these whole numbers exactly
    for count in range(runs):
        wins += (counts == count).float() @ (counts > count).float().T
    return wins.long()
