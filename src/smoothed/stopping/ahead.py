"""A watch for rules that say yes or no: it knows when the first yes may come."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.stopping.rule import Question, Watch
from smoothed.votes import Bound, bound_of

Settles = Callable[[Tensor, int, Bound], Tensor]
"""From scores (N, K), the draws that each image has had, and what one draw can do, to booleans (N,): which stop."""


def looking_ahead(question: Question, settles: Settles) -> Watch:
    """The watch of a rule that stops no image sooner than one whose draws all agree.

    If the vote's bound is not known, it asks for all draws.
    """
    first: list[int] = []

    def needs(scores: Float[Tensor, "n k"], drawn: int) -> Int[Tensor, " n"]:
        bound = bound_of(question.vote, scores.shape[1])
        if not 0 < bound.spread < math.inf:
            return scores.new_full((len(scores),), question.total - drawn, dtype=torch.int64)
        if not first:
            first.append(_first(settles, question.total, scores.shape[1], bound))
        if drawn < first[0]:
            return scores.new_full((len(scores),), first[0] - drawn, dtype=torch.int64)
        return (~settles(scores, drawn, bound).to(scores.device)).long()

    return needs


def _first(settles: Settles, total: int, classes: int, bound: Bound) -> int:
    best = torch.zeros(1, classes, dtype=torch.float64)
    best[0, 0] = bound.spread
    return next((drawn for drawn in range(1, total) if settles(drawn * best, drawn, bound)), total)
