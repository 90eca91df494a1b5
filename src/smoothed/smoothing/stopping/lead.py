"""How far ahead the leading class is."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def leader(scores: Float[Tensor, "n k"]) -> Int[Tensor, " n"]:
    """The class that wins if the vote ends here, (N,): the lowest of those that tie, as in `Tally.classes`."""
    return scores.argmax(1)


def lead(scores: Float[Tensor, "n k"], tie: float = 0.0) -> Float[Tensor, " n"]:
    """The leader's score less the best of the others, (N,).

    Args:
        scores: (N, K), K >= 2.
        tie: what classes below the leader have more, for they win a tie: 1 where scores are counts, so that the leader
            stays if it loses by less than its lead to any one class.
    """
    first = leader(scores).unsqueeze(1)
    others = scores.scatter(1, first, -torch.inf)
    if tie:
        others = others + tie * (torch.arange(scores.shape[1], device=scores.device) < first)
    return (scores.gather(1, first) - others.amax(1, keepdim=True))[:, 0]
