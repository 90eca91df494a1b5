"""Votes turn one draw's logits into scores: prediction, weighted and soft votes (eq. 9, 11, 12, 13).

A vote maps logits (R, K) to scores (R, K), row by row; any such function can serve as a vote. Classes with equal logits
are ranked in ascending order of their index.

A `VoteBound` limits the change that one draw can make to the difference of two classes' scores. Stopping rules need it;
`with_bound` declares it for a user's own vote.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_callable, check_choice, check_not_negative
from smoothed.utils.names import name_of

Vote = Callable[[Tensor], Tensor]
"""A function from logits (R, K) to scores (R, K); a larger score counts more."""


def prediction(logits: Float[Tensor, "r k"]) -> Float[Tensor, "r k"]:
    """Score 1 for the most probable class and 0 for the others (eq. 9)."""
    return functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(torch.float32)


def weighted(logits: Float[Tensor, "r k"]) -> Float[Tensor, "r k"]:
    """Score 2^(1 - k) for the class of rank k = 1, 2, ... (eq. 11)."""
    return torch.exp2(-_ranks(logits).to(torch.float32))


def soft(logits: Float[Tensor, "r k"]) -> Float[Tensor, "r k"]:
    """Score each class by its softmax probability (eq. 13); differentiable."""
    return logits.to(torch.float32).softmax(-1)


def top_two(second: float) -> Vote:
    """Create the vote that scores 1 for the most probable class, C = `second` for the next, 0 for others (eq. 12)."""
    return by_rank([1.0, check_not_negative(second, "second")])


def by_rank(weights: Sequence[float]) -> Vote:
    """Create the vote that scores `weights[k - 1]` for the class of rank k: the general form of eq. 11 and 12.

    Args:
        weights: finite weights of at least 0, best rank first; classes beyond the last weight score 0.

    Raises:
        ArgumentError: there are no weights, or a weight is negative or not finite.
    """
    try:
        weights = tuple(weights)
        values = torch.tensor(weights, dtype=torch.float32)
    except (TypeError, ValueError):
        raise ArgumentError("weights", "at least one finite weight of at least 0", repr(weights)) from None
    if len(values) == 0 or not bool((values.isfinite() & (values >= 0)).all()):
        raise ArgumentError("weights", "at least one finite weight of at least 0", list(weights))

    def vote(logits: Float[Tensor, "r k"]) -> Float[Tensor, "r k"]:
        classes = logits.shape[-1]
        padded = functional.pad(values, (0, max(0, classes - len(values)))).to(logits.device)
        return padded[_ranks(logits)]

    def bound(classes: int) -> VoteBound:
        scores = [*weights, *[0.0] * classes][:classes]
        is_one_hot = sorted(scores) == [0] * (classes - 1) + [1]
        return VoteBound(max(scores) - min(scores), max(scores), is_one_hot=is_one_hot, sums_to_one=is_one_hot)

    vote.__name__ = f"by_rank({', '.join(f'{weight:g}' for weight in weights)})"
    return BoundedVote(vote, bound)


VOTES: dict[str, Vote] = {"prediction": prediction, "weighted": weighted, "soft": soft}
"""Votes by their names on the command line."""


def resolve(vote: str | Vote, argument: str = "vote") -> Vote:
    """Return the vote of the given name, or `vote` itself if it is a function.

    Args:
        vote: a key of `VOTES`, or a function from logits to scores.
        argument: name of the argument in error messages.

    Raises:
        ArgumentError: the name is not a key of `VOTES`.
    """
    if callable(vote):
        return vote
    check_choice(vote, VOTES, argument)
    return VOTES[vote]


@dataclass(frozen=True)
class VoteBound:
    """Bounds on the scores of one draw.

    Attributes:
        spread: maximum change of the difference of two classes' scores; infinity if unknown.
        largest: maximum absolute value of a score.
        is_one_hot: whether one class scores 1 and the others 0, so that tallies are counts.
        sums_to_one: whether the scores are at least 0, sum to 1 and may be one-hot; true if `is_one_hot`.
    """

    spread: float
    largest: float
    is_one_hot: bool = False
    sums_to_one: bool = False


@dataclass(frozen=True)
class BoundedVote:
    """A vote with its bound.

    Attributes:
        function: maps logits (R, K) to scores (R, K).
        bound: maps the number of classes K to the vote's bound.
    """

    function: Vote
    bound: Callable[[int], VoteBound]

    @property
    def __name__(self) -> str:
        return name_of(self.function)

    def __call__(self, logits: Float[Tensor, "r k"]) -> Float[Tensor, "r k"]:
        """Map logits (R, K) to scores (R, K)."""
        return self.function(logits)


def with_bound(function: Vote, *, spread: float, largest: float | None = None) -> Vote:
    """Declare the bound of a user's own vote, so that rules of `smoothed.stopping` can stop it early.

    Args:
        function: maps logits (R, K) to scores (R, K).
        spread: maximum difference of two classes' scores in one draw. It is not checked: a value that is too small
            voids the guarantees of the stopping rules.
        largest: maximum absolute value of a score; None for `spread`, which is correct if the lowest score is 0.

    Raises:
        ArgumentError: a bound is negative or not finite.
    """
    check_callable(function, "function")
    spread = check_not_negative(spread, "spread")
    largest = spread if largest is None else check_not_negative(largest, "largest")
    return BoundedVote(function, lambda _: VoteBound(spread, largest))


def vote_bound(vote: Vote, classes: int) -> VoteBound:
    """Return the bound of `vote` for the given number of classes; its spread is infinite if unknown."""
    if isinstance(vote, BoundedVote):
        return vote.bound(classes)
    if vote is prediction:
        return VoteBound(1.0, 1.0, is_one_hot=True, sums_to_one=True)
    if vote is weighted:
        return VoteBound(1 - 2.0 ** (1 - classes), 1.0)
    return VoteBound(1.0, 1.0, sums_to_one=True) if vote is soft else VoteBound(math.inf, math.inf)


def spread(vote: Vote, classes: int) -> float:
    """Return the maximum change that one draw makes to the difference of two classes' scores.

    The spread is 1 for `prediction`, 1 - 2^(1 - K) for `weighted`, 1 for `soft` (a supremum that is not attained), the
    largest minus the smallest weight for `by_rank`, and infinity for a function without a bound (`with_bound`).
    """
    return vote_bound(vote, classes).spread


def _ranks(logits: Float[Tensor, "r k"]) -> Int[Tensor, "r k"]:
    """The rank of each class, (R, K), from 0 for the largest logit."""
    return logits.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
