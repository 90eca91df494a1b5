"""How many draws a gradient needs: the same attack over more and more of them, until it breaks no more images.

After each number of draws E, fresh votes say what share of them is right on each image. The gain of E over the number
before is the mean over images of the paired differences of these shares, with the interval of that mean: 1.96 of its
standard errors to each side, which cover the votes' own spread, too. The sweep is flat, and stops, at the first E whose
gain is not above 0 by its interval. It takes the E that left the lowest accuracy, the larger one of equals. Where it
never gets flat, the attacks of the suite are weaker than they could be, and the last row says so.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from smoothed.evaluation.fresh_votes import Votes
from smoothed.evaluation.worst_case.rows import Accuracy
from smoothed.utils.intervals import mean_and_deviation

# The standard errors that a 95 % interval of a mean extends to each side.
Z = 1.96


@dataclass(frozen=True)
class SweepRow:
    """What PGD on the expected cross-entropy over one number of draws leaves of the accuracy.

    Attributes:
        attack_samples: draws for each gradient, E.
        robust: expected accuracy of a vote on fresh draws.
        gain: by how much that is lower than with the E before; None in the first row.
        gain_interval: its 95 % interval over images, paired.
        flat: whether the interval reaches down to 0, which stops the sweep.
        chosen: whether the suite takes this E.
        images: how many.
        votes: fresh votes on each.
    """

    attack_samples: int
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


def sweep_draws(measure: Callable[[int], Votes], draws: Sequence[int]) -> list[SweepRow]:
    """Attack with each number of draws in turn until more of them change nothing.

    Args:
        measure: from a number of draws to the fresh votes on each image after that attack.
        draws: the numbers, ascending.

    Returns:
        A row for each that was tried; one of them is `chosen`.
    """
    rows = list[SweepRow]()
    before: Tensor | None = None
    for number in draws:
        votes = measure(number)
        shares = votes.shares
        gain = None if before is None else paired_gain(before, shares)
        rows.append(
            SweepRow(
                attack_samples=number,
                robust=Accuracy.of_shares([shares]),
                gain=None if gain is None else gain[0],
                gain_interval=None if gain is None else gain[1],
                flat=gain is not None and gain[1][0] <= 0,
                chosen=False,
                images=len(shares),
                votes=int(votes.count.min()),
            )
        )
        before = shares
        if rows[-1].flat:
            break
    best = min(rows, key=lambda row: (row.robust.mean, -row.attack_samples))
    return [replace(row, chosen=row is best) for row in rows]


def chosen_draws(rows: Sequence[SweepRow]) -> int:
    """The number of draws that the sweep takes."""
    return next(row.attack_samples for row in rows if row.chosen)


def paired_gain(before: Tensor, after: Tensor) -> tuple[float, tuple[float, float]]:
    """The mean of `before - after`, (N,) each, and its 95 % interval, by the normal approximation."""
    mean, deviation = mean_and_deviation((before - after).double().tolist())
    half = Z * deviation / math.sqrt(len(before))
    return mean, (mean - half, mean + half)
