"""A stopping rule that spends a given average number of draws, mostly on images with close votes."""

import math
from dataclasses import dataclass
from numbers import Real

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.errors import ArgumentError
from smoothed.smoothing.stopping.exact import Exact
from smoothed.smoothing.stopping.normal import margins
from smoothed.smoothing.stopping.rivals import leads_and_rival_votes
from smoothed.smoothing.stopping.rule import Monitor, StoppingProblem, VoteState
from smoothed.smoothing.votes import VoteBound, vote_bound


@dataclass(frozen=True)
class Budget:
    """Limit the average number of draws per image to `mean`, with more draws for images whose votes are close.

    Every image first takes a quarter of `mean`. The remaining budget is divided equally among rounds, up to M draws:
    each round continues the images with the closest votes, at least one as long as the budget pays for it, and doubles
    their draws (successive halving). An image whose class cannot change any more stops in any case, and the budget it
    saves goes to the others. There is no guarantee on
    how many classes differ from those of all M draws; their number depends on how many images have close votes.

    The average is taken over the images of one call of `tally` or `predict`, so pass many images at once; each of
    several processes keeps the average over its own images. For a vote without a bound (`votes.with_bound`) closeness
    is unknown, and every image takes `mean` draws.

    Args:
        mean: maximum average number of draws per image, at least 1.

    Raises:
        ArgumentError: `mean` is below 1 or not finite.
    """

    mean: float = 32

    def __post_init__(self) -> None:
        if isinstance(self.mean, bool) or not isinstance(self.mean, Real) or not 1 <= self.mean < float("inf"):
            raise ArgumentError("mean", "a finite number of draws of at least 1", repr(self.mean))

    def monitor(self, problem: StoppingProblem) -> Monitor:
        """See `StoppingRule.monitor`."""
        return _Rounds(self.mean, problem).draws_needed


class _Rounds:
    """The remaining budget, and the number of draws at which the next round begins."""

    def __init__(self, mean: float, problem: StoppingProblem) -> None:
        self.problem = problem
        self._exact = Exact().monitor(problem)
        self._draws_per_image = min(int(mean), problem.total)
        self._remaining_draws = int(mean * problem.images)
        self._counted = 0
        self._next_round = max(1, self._draws_per_image // 4)

    def draws_needed(self, state: VoteState) -> Int[Tensor, " n"]:
        """See `Monitor`."""
        scores, drawn = state.scores, state.drawn
        self._remaining_draws -= len(scores) * (drawn - self._counted)
        self._counted = drawn
        bound = vote_bound(self.problem.vote, scores.shape[1])
        if bound.spread == math.inf:
            return scores.new_full((len(scores),), max(0, self._draws_per_image - drawn), dtype=torch.int64)
        needed = self._exact(state)
        if drawn >= self._next_round:
            rounds = max(1, math.ceil(math.log2(self.problem.total / drawn)))
            self._next_round = min(2 * drawn, self.problem.total)
            cost = self._next_round - drawn  # of one image
            # One image goes on as long as the budget lasts, also where its share of the round would be less.
            kept_images = max(int(self._remaining_draws / rounds / cost), min(1, self._remaining_draws // cost))
            margin = torch.where(needed > 0, _margin(state, self.problem.total, bound), torch.inf)
            needed[margin.argsort(stable=True)[kept_images:]] = 0
        return needed.clamp_max(self._next_round - drawn)


def _margin(state: VoteState, total: int, bound: VoteBound) -> Float[Tensor, " n"]:
    """The lead over the closest rival, (N,), in units of the lead's standard deviation."""
    if not bound.is_one_hot and bound.spread > 0:
        return margins(state, total, bound, weight=1).amin(1)
    lead, rival = (best[:, 0] for best in leads_and_rival_votes(state, bound, rivals=1))
    return lead / (lead + 2 * rival).sqrt()  # the deviation if both classes were equally probable
