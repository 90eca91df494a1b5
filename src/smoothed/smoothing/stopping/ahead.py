"""A watch for rules that say yes or no: it knows when the first yes may come."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from smoothed.smoothing.stopping.rule import Question, Seen, Watch
from smoothed.smoothing.votes import Bound, bound_of

Settles = Callable[[Seen, Bound], Tensor]
"""From what is seen of the images, and what one draw can do, to booleans (N,): which stop."""

# Squares of scores that differ by less vanish in float32.
_SMALLEST = 2.0**-50


def looking_ahead(question: Question, settles: Settles) -> Watch:
    """The watch of a rule that stops no image sooner than one whose draws all agree.

    If the vote's bound is not known, it asks for all draws.
    """
    first: list[int] = []

    def needs(seen: Seen) -> Int[Tensor, " n"]:
        scores, drawn = seen.scores, seen.drawn
        bound = bound_of(question.vote, scores.shape[1])
        if not _SMALLEST < bound.spread < math.inf:
            return scores.new_full((len(scores),), question.total - drawn, dtype=torch.int64)
        if not first:
            first.append(_first(settles, question.total, scores.shape[1], bound))
        if drawn < first[0]:
            return scores.new_full((len(scores),), first[0] - drawn, dtype=torch.int64)
        return (~settles(seen, bound).to(scores.device)).long()

    return needs


def _first(settles: Settles, total: int, classes: int, bound: Bound) -> int:
    best = torch.zeros(1, classes, dtype=torch.float64)
    best[0, 0] = bound.spread
    agreeing = (Seen(drawn * best, drawn * best.square(), drawn) for drawn in range(1, total))
    return next((seen.drawn for seen in agreeing if settles(seen, bound)), total)
