"""Spend a given average number of draws where votes are close."""

import math
from dataclasses import dataclass
from numbers import Real

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.errors import ArgumentError
from smoothed.smoothing.stopping.exact import Exact
from smoothed.smoothing.stopping.normal import margins
from smoothed.smoothing.stopping.pairs import pairs
from smoothed.smoothing.stopping.rule import Question, Seen, Watch
from smoothed.smoothing.votes import Bound, bound_of


@dataclass(frozen=True)
class Budget:
    """The images of one call take at most `mean` draws on average, more of them where votes are close.

    All images take a quarter of `mean`. What is left is shared equally among rounds, until M: each goes on with the
    images whose votes are closest and doubles their draws (successive halving). An image whose class the draws that are
    left can't change stops in any case, and what it spares goes to the others. How many classes are not those of all
    draws is not promised: it depends on how many images are close.

    The mean is over the images of one call of `tally` or `predict`, so give it many at once; of several processes each
    keeps it over its share. What is close is not known of a vote whose bound isn't (`votes.bounded`): each image then
    takes `mean` draws.

    Args:
        mean: draws an image, at least 1.

    Raises:
        ArgumentError: a mean below 1.
    """

    mean: float = 32

    def __post_init__(self) -> None:
        if isinstance(self.mean, bool) or not isinstance(self.mean, Real) or not 1 <= self.mean < float("inf"):
            raise ArgumentError("mean", "a finite number of draws of at least 1", repr(self.mean))

    def watch(self, question: Question) -> Watch:
        """See `Stop`."""
        return _Rounds(self.mean, question).needs


class _Rounds:
    """What is left to spend, and when the next round begins."""

    def __init__(self, mean: float, question: Question) -> None:
        self.question = question
        self._exact = Exact().watch(question)
        self._each = min(int(mean), question.total)
        self._left = int(mean * question.images)
        self._seen = 0
        self._next = max(1, self._each // 4)

    def needs(self, seen: Seen) -> Int[Tensor, " n"]:
        """See `Watch`."""
        scores, drawn = seen.scores, seen.drawn
        self._left -= len(scores) * (drawn - self._seen)
        self._seen = drawn
        bound = bound_of(self.question.vote, scores.shape[1])
        if bound.spread == math.inf:
            return scores.new_full((len(scores),), max(0, self._each - drawn), dtype=torch.int64)
        needs = self._exact(seen)
        if drawn >= self._next:
            rounds = max(1, math.ceil(math.log2(self.question.total / drawn)))
            self._next = min(2 * drawn, self.question.total)
            keep = int(self._left / rounds / (self._next - drawn))
            margin = torch.where(needs > 0, _margin(seen, self.question.total, bound), torch.inf)
            needs[margin.argsort(stable=True)[keep:]] = 0
        return needs.clamp_max(self._next - drawn)


def _margin(seen: Seen, total: int, bound: Bound) -> Float[Tensor, " n"]:
    """The lead over the nearest rival, in units of its deviation."""
    if not bound.counts and bound.spread > 0:
        return margins(seen, total, bound, weight=1).amin(1)
    lead, rival = (best[:, 0] for best in pairs(seen, bound, rivals=1))
    return lead / (lead + 2 * rival).sqrt()  # as if both were equally probable
