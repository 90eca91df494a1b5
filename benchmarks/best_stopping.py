"""What no rule can save, even one that knows the class probabilities of all images, though not whose image is whose.

Let each draw cost 1 and each changed class a price. The least cost on average is found backwards from M draws, for each
number of votes of two classes (dynamic programming). Whatever a rule does, it draws at least that cost less the price
of what it changes. The rule that is bounded here is told more than a real one: which two classes of an image are the
most probable ones, in no order. Others don't count, and a tie in the end is right for both.

Chances of the next draw are those of the population: a mean over its images, by how likely they make the counts. After
`FEW` draws the counts themselves take their place.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEW = 96

Array = NDArray[np.float64]


def fewest_draws(population: Array, total: int, changed: float, prices: Sequence[float]) -> float:
    """The mean number of draws without which no rule keeps to that share of changed classes.

    Args:
        population: class probabilities of the images, (N, K).
        total: M.
        changed: the share, in [0, 1].
        prices: of a changed class, in draws; each gives a bound, and the best one is returned.
    """
    costs = least_costs(population, total, prices)
    return float((costs - changed * np.asarray(prices)).max())


def least_costs(population: Array, total: int, prices: Sequence[float]) -> Array:
    """The least mean cost of an image, by price, (P,); arguments as in `fewest_draws`."""
    best = -np.sort(-population, 1)[:, :2]
    pairs = np.concatenate([best, best[:, ::-1]]).clip(1e-9, 1)
    price = np.asarray(prices, dtype=np.float64)[:, None, None]
    first, second = np.arange(total + 1.0)[:, None], np.arange(total + 1.0)[None]
    lost = (second > first).astype(np.float64)  # the chance that the second is ahead in the end
    cost = price * np.minimum(lost, lost.T)
    for drawn in range(total - 1, -1, -1):
        size = drawn + 1
        if drawn <= FEW:
            to_first, to_second = _chances(pairs, drawn)
        else:
            to_first, to_second = ((votes[:size, :size] + 0.1) / (drawn + 1) for votes in (first, second))
        neither = np.clip(1 - to_first - to_second, 0, 1)
        lost, going_on = (
            to_first * of[..., 1 : size + 1, :size]
            + to_second * of[..., :size, 1 : size + 1]
            + neither * of[..., :size, :size]
            for of in (lost, cost)
        )
        cost = np.minimum(1 + going_on, price * np.minimum(lost, lost.T))
    return cost[:, 0, 0]


def _chances(pairs: Array, drawn: int) -> tuple[Array, Array]:
    """The chances that the next draw is for the first class, or for the second, after x and y votes: (x, y) each."""
    x, y = np.nonzero(np.add.outer(np.arange(drawn + 1), np.arange(drawn + 1)) <= drawn)
    rest = np.log((1 - pairs.sum(1)).clip(1e-9, 1))
    log = np.outer(x, np.log(pairs[:, 0])) + np.outer(y, np.log(pairs[:, 1])) + np.outer(drawn - x - y, rest)
    likely = np.exp(log - log.max(1, keepdims=True))
    to_first = np.zeros((drawn + 1, drawn + 1))
    to_first[x, y] = likely @ pairs[:, 0] / likely.sum(1)
    return to_first, to_first.T
