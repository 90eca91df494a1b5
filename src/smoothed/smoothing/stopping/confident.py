"""A stopping rule that bounds the probability that all M draws would give another class."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from smoothed.smoothing.stopping.arguments import check_delta, check_weight
from smoothed.smoothing.stopping.exact import Exact
from smoothed.smoothing.stopping.lookahead import monitor_with_lookahead
from smoothed.smoothing.stopping.martingale import log_ratio_of_counts, log_ratio_of_sums
from smoothed.smoothing.stopping.normal import chance_of_change, margins
from smoothed.smoothing.stopping.posterior import chance_table
from smoothed.smoothing.stopping.rivals import leads_and_rival_votes
from smoothed.smoothing.stopping.rule import Monitor, StoppingProblem, VoteState
from smoothed.smoothing.votes import VoteBound
from smoothed.utils.checks import check_choice

Guarantee = Literal["average", "each"]


@dataclass(frozen=True)
class Confident:
    """Stop an image once the probability that all M draws give another class is at most `delta`.

    The probabilities of several rival classes are added up, and a tie counts as another class. A vote without a bound
    (`votes.with_bound`) takes all draws.

    Args:
        delta: maximum probability of another class, in (0, 1).
        guarantee: the randomness that the probability refers to.

            `average`: the posterior predictive distribution of the image's remaining votes. The guarantee holds on
            average over images whose class probabilities follow the prior. If all images are close to a tie, more than
            a fraction `delta` may get another class, though by a margin of few votes. For `prediction` votes the
            likelihood is exact. Scores of other votes are modelled as normal with mean and deviation estimated from the
            draws; if draws are nearly equal except for rare large ones, more than `delta` may change.

            `each`: the random order of an image's draws. The guarantee holds for every image, whatever its class
            probabilities. It takes about 1.5 times as many draws as `average` for `prediction` votes
            (`benchmarks/stopping.py`), and more for other votes.
        prior_weight: weight of the prior of `average`, in draws, above 0; a smaller weight trusts the first draws more.
            For `prediction` votes the prior is a symmetric Dirichlet distribution of this total weight; weight 1 is the
            reference prior of Perks (1947), for two classes that of Jeffreys. For other votes the prior counts as that
            many draws, each of which changes the lead by the maximum.

    Raises:
        ArgumentError: `delta` is outside (0, 1), the guarantee is unknown, or the weight is not positive.
    """

    delta: float = 0.001
    guarantee: Guarantee = "average"
    prior_weight: float = 1.0

    def __post_init__(self) -> None:
        check_delta(self.delta)
        check_choice(self.guarantee, ("average", "each"), "guarantee")
        check_weight(self.prior_weight)

    def monitor(self, problem: StoppingProblem) -> Monitor:
        """See `StoppingRule.monitor`."""
        may_stop = self._may_stop_on_average if self.guarantee == "average" else self._may_stop_for_each
        confident, exact = monitor_with_lookahead(problem, partial(may_stop, problem.total)), Exact().monitor(problem)

        def draws_needed(state: VoteState) -> Int[Tensor, " n"]:
            return torch.minimum(confident(state), exact(state))

        return draws_needed

    def _may_stop_on_average(self, total: int, state: VoteState, bound: VoteBound) -> Bool[Tensor, " n"]:
        classes, weight = state.scores.shape[1], self.prior_weight
        if bound.is_one_hot:
            table = chance_table(total, classes, self.delta, weight / classes)
            return table.confident(*leads_and_rival_votes(state, bound, rivals=2), state.drawn)
        return chance_of_change(margins(state, total, bound, weight), state.drawn + weight) <= self.delta

    def _may_stop_for_each(self, total: int, state: VoteState, bound: VoteBound) -> Bool[Tensor, " n"]:
        # One class wins after all M draws; each of the K - 1 others may lead and be mistaken for the winner.
        drawn, delta = state.drawn, self.delta / (state.scores.shape[1] - 1)
        lead, rival = (best[:, 0] for best in leads_and_rival_votes(state, bound, rivals=1))
        if bound.is_one_hot:
            ratio = log_ratio_of_counts(rival + lead, rival, total - drawn)
        else:
            ratio = log_ratio_of_sums(lead, drawn, total, delta)
        return (ratio >= -math.log(delta)) & (lead > 0)
