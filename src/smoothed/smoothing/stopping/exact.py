"""A stopping rule that stops once the remaining draws cannot change the class."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from smoothed.smoothing.stopping.lead import lead
from smoothed.smoothing.stopping.rule import UNIT_ROUNDOFF, Monitor, StoppingProblem, VoteState
from smoothed.smoothing.votes import Vote, vote_bound


@dataclass(frozen=True)
class Exact:
    """Stop an image as soon as the remaining draws cannot change its class; ties go to the lowest class.

    The class is always that of all M draws. A vote without a bound (`votes.with_bound`) takes all draws.
    """

    def monitor(self, problem: StoppingProblem) -> Monitor:
        """See `StoppingRule.monitor`."""
        return partial(_draws_needed, problem.vote, problem.total)


def _draws_needed(vote: Vote, total: int, state: VoteState) -> Int[Tensor, " n"]:
    """Number of further draws until the leader cannot be overtaken, if all of them vote for the leader, (N,)."""
    scores, remaining = state.scores, total - state.drawn
    bound = vote_bound(vote, scores.shape[1])
    if bound.is_one_hot:
        # Each further draw adds 1 to the lead and subtracts 1 from the votes that rivals can still gain.
        return ((remaining - lead(scores, tie=1.0)) / 2).ceil().clamp(0, remaining).long()
    if not 0 < bound.spread < math.inf:
        # A spread of 0 means that all classes tie in every draw.
        return scores.new_full((len(scores),), remaining if bound.spread else 0, dtype=torch.int64)
    # The rule for ties is not used, because sums are rounded; the slack bounds the rounding error of two classes' sums.
    slack = 2 * remaining * UNIT_ROUNDOFF * (scores.abs().amax(1) + remaining * bound.largest)
    deficit = remaining * bound.spread - lead(scores)
    return torch.where(deficit + slack < 0, 0, (deficit / (2 * bound.spread)).ceil().clamp(1, remaining)).long()
