"""How one draw's logits become scores: prediction, weighted and soft votes (eq. 9, 11, 12, 13).

A vote maps logits (R, K) to scores (R, K), row by row; a user's own vote is any such function. Equal logits of one draw
rank in the order of their classes, the lowest first.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from smoothed.checks import check_choice
from smoothed.errors import ArgumentError

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
    values = torch.tensor(tuple(weights), dtype=torch.float32)
    if len(values) == 0 or not bool((values.isfinite() & (values >= 0)).all()):
        raise ArgumentError("weights", "at least one finite weight of at least 0", list(weights))

    def vote(logits: Float[Tensor, "r k"]) -> Float[Tensor, "r k"]:
        classes = logits.shape[-1]
        padded = functional.pad(values, (0, max(0, classes - len(values)))).to(logits.device)
        return padded[_ranks(logits)]

    return vote


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


def _ranks(logits: Float[Tensor, "r k"]) -> Int[Tensor, "r k"]:
    """The rank of each class, from 0: the argsort of a stable descending argsort."""
    return logits.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
