"""Compare settings on the same images: which differences are real, and which settings may be the best.

An image counts for the setting that got it right in more runs; images on which two settings agree say nothing. Of those
that differ, half would favour either if there were no difference. This is the sign test; with one run it is the exact
form of McNemar's (1947).
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from jaxtyping import Bool, Int
from scipy.stats import binom, binomtest
from torch import Tensor

from smoothed.evaluation.worst_case.eot_sweep import paired_gain

LEVEL = 0.05
"""Below it a difference counts as real."""


@dataclass(frozen=True)
class Comparison:
    """One setting against another, on the same images.

    Attributes:
        gain: by how much the first is more accurate.
        gain_interval: its 95 % interval over images, of paired differences, by the normal approximation.
        wins: images on which the first is right in more runs.
        losses: images on which the second is.
        p: two-sided, of the exact test that wins and losses are equally likely.
    """

    gain: float
    gain_interval: tuple[float, float]
    wins: int
    losses: int
    p: float

    @property
    def real(self) -> bool:
        """Whether the difference is told from chance, at `LEVEL`."""
        return self.p < LEVEL

    @classmethod
    def of(cls, first: Bool[Tensor, "runs n"], second: Bool[Tensor, "runs n"]) -> Self:
        """From whether each image was right in each run."""
        ones, others = first.sum(0), second.sum(0)
        gain, interval = paired_gain(ones.double() / len(first), others.double() / len(second))
        wins, losses = int((ones > others).sum()), int((ones < others).sum())
        return cls(gain, interval, wins, losses, sign_test(wins, losses))

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return asdict(self)


def sign_test(wins: int, losses: int) -> float:
    """The two-sided probability of a split at least as uneven, were both sides equally likely; 1 without any."""
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def may_be_best(right: Bool[Tensor, "settings runs n"], level: float = LEVEL) -> Bool[Tensor, " settings"]:
    """Which settings may be the best: a set that holds the best one with probability 1 - `level` or more.

    A setting is left out if another beats it in a one-sided sign test at `level`, divided by the number of the others
    (Bonferroni). So it does not matter that the best was looked for on the same images; the price is a larger set.

    Args:
        right: whether each image was right in each run.
        level: of the test of each setting, in (0, 1).
    """
    wins = _wins(right.sum(1), right.shape[1]).numpy()
    # The chance of that many wins or more, were both equally likely to win.
    chance = binom.sf(wins - 1, wins + wins.T, 0.5)
    return torch.from_numpy(chance.min(1) * max(1, len(right) - 1) >= level)


def _wins(counts: Int[Tensor, "s n"], runs: int) -> Int[Tensor, "s s"]:
    """On how many images the second setting was right in more runs than the first, (first, second)."""
    wins = torch.zeros(len(counts), len(counts))  # whole numbers that float32 holds
    for count in range(runs):
        wins += (counts == count).float() @ (counts > count).float().T
    return wins.long()
