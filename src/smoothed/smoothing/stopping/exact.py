"""Stop once nothing can change the class."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from smoothed.smoothing.stopping.lead import lead
from smoothed.smoothing.stopping.rule import ROUNDING, Question, Seen, Watch
from smoothed.smoothing.votes import Vote, bound_of


@dataclass(frozen=True)
class Exact:
    """An image stops as soon as the draws that are left can't change its class, ties included: they go to the lowest.

    The class is that of all M draws, always. A vote whose draws may do anything (`votes.bounded` says what they may)
    never stops early.
    """

    def watch(self, question: Question) -> Watch:
        """See `Stop`."""
        return partial(_needs, question.vote, question.total)


def _needs(vote: Vote, total: int, seen: Seen) -> Int[Tensor, " n"]:
    """How many draws more until the leader may be out of reach, if all of them are for it."""
    scores, left = seen.scores, total - seen.drawn
    bound = bound_of(vote, scores.shape[1])
    if bound.counts:
        # Each draw more adds 1 to the lead, and takes 1 from what can still be lost.
        return ((left - lead(scores, tie=1.0)) / 2).ceil().clamp(0, left).long()
    if not 0 < bound.spread < math.inf:
        # Without a spread all classes tie in every draw.
        return scores.new_full((len(scores),), left if bound.spread else 0, dtype=torch.int64)
    # A tie counts for nothing here, for sums are rounded, those that are to come too: each of two classes by so much.
    slack = 2 * left * ROUNDING * (scores.abs().amax(1) + left * bound.largest)
    short = left * bound.spread - lead(scores)
    return torch.where(short + slack < 0, 0, (short / (2 * bound.spread)).ceil().clamp(1, left)).long()
