"""How one draw's logits become scores: prediction, weighted and soft votes (eq. 9, 11, 12, 13).

A vote maps logits (R, K) to scores (R, K), row by row; a user's own vote is any such function. Equal logits of one draw
rank in the order of their classes, the lowest first.

What one draw can do to the lead of a class is the vote's `Bound`. Rules that stop early need it: `bounded` states that
of a user's own vote.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_choice, check_not_negative

Vote = Callable[[Tensor], Tensor]
"""From logits (R, K) to scores (R, K), of which larger means more votes."""


def prediction(logits: Float[Tensor, "r k"]) -> Float[Tensor, "r k"]:
    """1 for the most probable class, 0 for the others (eq. 9)."""
    return functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(torch.float32)


def weighted(logits: Float[Tensor, "r k"]) -> Float[Tensor, "r k"]:
    """2^(1 - k) for the class of rank k = 1, 2, ... (eq. 11)."""
    return torch.exp2(-_ranks(logits).to(torch.float32))


def soft(logits: Float[Tensor, "r k"]) -> Float[Tensor, "r k"]:
    """The softmax (eq. 13); differentiable."""
    return logits.to(torch.float32).softmax(-1)


def top_two(second: float) -> Vote:
    """1 for the most probable class, C = `second` for the next one, 0 for the others (eq. 12)."""
    return by_rank([1.0, second])


def by_rank(weights: Sequence[float]) -> Vote:
    """`weights[k - 1]` for the class of rank k, 0 beyond the last weight: the general form of eq. 11 and 12.

    Raises:
        ArgumentError: no weights, or one that is negative or not finite.
    """
    weights = tuple(weights)
    values = torch.tensor(weights, dtype=torch.float32)
    if len(values) == 0 or not bool((values.isfinite() & (values >= 0)).all()):
        raise ArgumentError("weights", "at least one finite weight of at least 0", list(weights))

    def vote(logits: Float[Tensor, "r k"]) -> Float[Tensor, "r k"]:
        classes = logits.shape[-1]
        padded = functional.pad(values, (0, max(0, classes - len(values)))).to(logits.device)
        return padded[_ranks(logits)]

    def bound(classes: int) -> Bound:
        given = [*weights, *[0.0] * classes][:classes]
        winner_alone = sorted(given) == [0] * (classes - 1) + [1]
        return Bound(max(given) - min(given), max(given), counts=winner_alone, shares=winner_alone)

    return Bounded(vote, bound)


VOTES: dict[str, Vote] = {"prediction": prediction, "weighted": weighted, "soft": soft}
"""The votes by name."""


def resolve(vote: str | Vote) -> Vote:
    """The vote of that name, or the function itself.

    Raises:
        ArgumentError: an unknown name.
    """
    if callable(vote):
        return vote
    check_choice(vote, VOTES, "vote")
    return VOTES[vote]


@dataclass(frozen=True)
class Bound:
    """What one draw can do.

    Attributes:
        spread: the most by which it moves the difference of two classes; infinity where that is not known.
        largest: the largest score, in size.
        counts: whether it gives 1 to one class and 0 to the others, so that tallies are counts.
        shares: whether it shares 1 among the classes, and may give all of it to any one; counts are shares.
    """

    spread: float
    largest: float
    counts: bool = False
    shares: bool = False


@dataclass(frozen=True)
class Bounded:
    """A vote that knows its bound, a function of the number of classes."""

    function: Vote
    bound: Callable[[int], Bound]

    def __call__(self, logits: Float[Tensor, "r k"]) -> Float[Tensor, "r k"]:
        """The scores (R, K) of logits (R, K)."""
        return self.function(logits)


def bounded(function: Vote, *, spread: float, largest: float | None = None) -> Vote:
    """`function` with its bound, which lets rules of `smoothed.stopping` stop it early.

    Args:
        function: from logits (R, K) to scores (R, K).
        spread: the most by which the scores of two classes of one draw differ. If draws differ by more, a rule may be
            wrong; nothing checks it.
        largest: the largest score, in size; `spread` when None, which is right where the lowest score is 0.

    Raises:
        ArgumentError: a bound that is negative or not finite.
    """
    spread = check_not_negative(spread, "spread")
    largest = spread if largest is None else check_not_negative(largest, "largest")
    return Bounded(function, lambda _: Bound(spread, largest))


def bound_of(vote: Vote, classes: int) -> Bound:
    """The bound of that vote over that many classes: an infinite spread if the vote doesn't know it."""
    if isinstance(vote, Bounded):
        return vote.bound(classes)
    if vote is prediction:
        return Bound(1.0, 1.0, counts=True, shares=True)
    if vote is weighted:
        return Bound(1 - 2.0 ** (1 - classes), 1.0)
    return Bound(1.0, 1.0, shares=True) if vote is soft else Bound(math.inf, math.inf)


def spread(vote: Vote, classes: int) -> float:
    """The most by which one draw moves the difference of two of K classes.

    It is 1 for `prediction`, 1 - 2^(1 - K) for `weighted`, 1 for `soft`, which never reaches it, the largest weight
    less the smallest for `by_rank`, and infinity for a function that does not know it (`bounded`).
    """
    return bound_of(vote, classes).spread


def _ranks(logits: Float[Tensor, "r k"]) -> Int[Tensor, "r k"]:
    """The rank of each class, from 0: the argsort of a stable descending argsort."""
    return logits.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
