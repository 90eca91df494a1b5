"""The leading class of a vote and its lead over the other classes."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def leader(scores: Float[Tensor, "n k"]) -> Int[Tensor, " n"]:
    """Return the class with the highest score, (N,) int64; the lowest of tied classes, as in `Tally.classes`."""
    return scores.argmax(1)


def lead(scores: Float[Tensor, "n k"], tie: float = 0.0) -> Float[Tensor, " n"]:
    """Return the leader's score minus the highest score of the other classes, (N,).

    Args:
        scores: (N, K), K >= 2.
        tie: amount added to the scores of classes of a lower index than the leader, because they win ties. With 1 for
            counts, the leader wins unless a class gains more than the returned lead on it.
    """
    first = leader(scores).unsqueeze(1)
    others = scores.scatter(1, first, -torch.inf)
    if tie:
        others = others + tie * (torch.arange(scores.shape[1], device=scores.device) < first)
    return (scores.gather(1, first) - others.amax(1, keepdim=True))[:, 0]
