"""A monitor for rules given as a yes-or-no condition; it computes the first draw at which the condition can hold."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from smoothed.smoothing.stopping.rule import Monitor, StoppingProblem, VoteState
from smoothed.smoothing.votes import VoteBound, vote_bound

StopCondition = Callable[[VoteState, VoteBound], Tensor]
"""A function from the state of the images and the vote's bound to booleans (N,): whether each image may stop."""

# The squares of smaller scores underflow in float32.
_SMALLEST_SPREAD = 2.0**-50


def monitor_with_lookahead(problem: StoppingProblem, may_stop: StopCondition) -> Monitor:
    """Create the monitor of a condition that no image meets earlier than an image whose draws all agree.

    Without a bound on the vote (`votes.with_bound`), the monitor asks for all draws.
    """
    earliest_stop: list[int] = []

    def draws_needed(state: VoteState) -> Int[Tensor, " n"]:
        scores, drawn = state.scores, state.drawn
        bound = vote_bound(problem.vote, scores.shape[1])
        if not _SMALLEST_SPREAD < bound.spread < math.inf:
            return scores.new_full((len(scores),), problem.total - drawn, dtype=torch.int64)
        if not earliest_stop:
            earliest_stop.append(_earliest_stop(may_stop, problem.total, scores.shape[1], bound))
        if drawn < earliest_stop[0]:
            return scores.new_full((len(scores),), earliest_stop[0] - drawn, dtype=torch.int64)
        return (~may_stop(state, bound).to(scores.device)).long()

    return draws_needed


def _earliest_stop(may_stop: StopCondition, total: int, classes: int, bound: VoteBound) -> int:
    """The number of draws after which an image whose draws all agree may stop; `total` if it never may."""
    draw = torch.zeros(1, classes, dtype=torch.float64)
    draw[0, 0] = bound.spread
    agreeing = (VoteState(drawn * draw, drawn * draw.square(), drawn) for drawn in range(1, total))
    return next((state.drawn for state in agreeing if may_stop(state, bound)), total)
