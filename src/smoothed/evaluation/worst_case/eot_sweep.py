"""Sweep over the draws averaged for each gradient: repeat one attack with more draws until they gain nothing.

After the attack with each number of draws E, fresh votes estimate the probability of a right vote on each image. The
gain of E is the mean over images of the decrease since the previous E; its 95 % interval is the normal approximation
for paired differences. The sweep stops as flat at the first E whose interval reaches 0. The suite uses the E with the
lowest accuracy (the larger one of equals). If the sweep never becomes flat, stronger attacks are possible with more
draws, and the last row reports it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from torch import Tensor

from smoothed.evaluation.fresh_votes import VoteCounts
from smoothed.evaluation.results import Accuracy, paired_gain


@dataclass(frozen=True)
class EOTSweepRow:
    """Accuracy under PGD on the expected cross-entropy, at one number of draws per gradient.

    Attributes:
        eot_samples: draws averaged for each gradient (E).
        robust: expected accuracy of a vote with fresh draws.
        gain: decrease of the accuracy since the previous E; None in the first row.
        gain_interval: 95 % interval of `gain`, for paired differences over images; None in the first row.
        flat: whether the interval of the gain reaches 0, which stops the sweep.
        chosen: whether the suite uses this E.
        images: number of images.
        votes: number of fresh votes on each image.
    """

    eot_samples: int
    robust: Accuracy
    gain: float | None
    gain_interval: tuple[float, float] | None
    flat: bool
    chosen: bool
    images: int
    votes: int

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read the JSON values of a row."""
        return cls(**{**values, "robust": Accuracy.from_json(values["robust"])})


def sweep_eot_samples(measure: Callable[[int], VoteCounts], draws: Sequence[int]) -> list[EOTSweepRow]:
    """Attack with increasing numbers of draws per gradient until more draws gain nothing.

    Args:
        measure: function from a number of draws to the fresh votes on each image after the attack with that number.
        draws: numbers of draws, ascending.

    Returns:
        A row for each number that was tried; exactly one of them is `chosen`.
    """
    rows = list[EOTSweepRow]()
    previous: Tensor | None = None
    for eot_samples in draws:
        votes = measure(eot_samples)
        shares = votes.shares
        gain = None if previous is None else paired_gain(previous, shares)
        rows.append(
            EOTSweepRow(
                eot_samples=eot_samples,
                robust=Accuracy.of_shares([shares]),
                gain=None if gain is None else gain[0],
                gain_interval=None if gain is None else gain[1],
                flat=gain is not None and gain[1][0] <= 0,
                chosen=False,
                images=len(shares),
                votes=int(votes.count.min()),
            )
        )
        previous = shares
        if rows[-1].flat:
            break
    best = min(rows, key=lambda row: (row.robust.mean, -row.eot_samples))
    return [replace(row, chosen=row is best) for row in rows]


def chosen_eot_samples(rows: Sequence[EOTSweepRow]) -> int:
    """The number of draws per gradient that the sweep chose."""
    return next(row.eot_samples for row in rows if row.chosen)
