"""A stopping rule that stops once the leader is the class with the highest expected score."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smoothed.smoothing.stopping.arguments import check_delta
from smoothed.smoothing.stopping.lookahead import monitor_with_lookahead
from smoothed.smoothing.stopping.martingale import log_ratio_of_leads, log_ratio_of_shares
from smoothed.smoothing.stopping.rivals import leads_and_rival_votes, leads_and_variation
from smoothed.smoothing.stopping.rule import Monitor, StoppingProblem, VoteState
from smoothed.smoothing.votes import VoteBound


@dataclass(frozen=True)
class TrueMode:
    """Stop an image once its leader is, with high confidence, the true mode: the class with the highest expected score.

    For every image, whatever its class probabilities, the probability that it stops with another leader is at most
    `delta`, even though the test is evaluated after every draw. The guarantee refers to the expected scores, not to the
    class of all M draws. An image that is still undecided after M draws gets their class, without this guarantee; its
    `num_samples` is M.

    Each rival is excluded at level delta / (K - 1) by the prior-posterior ratio (Waudby-Smith and Ramdas, 2020). Scores
    that are not counts are treated as fractions of votes, and the ratio is averaged with one that grows faster if draws
    vary little (Fan, Grama and Liu, 2015); the guarantee holds for the average. A vote without a bound
    (`votes.with_bound`) takes all draws.

    Args:
        delta: maximum probability of stopping with a class other than the true mode, in (0, 1).

    Raises:
        ArgumentError: `delta` is outside (0, 1).
    """

    delta: float = 0.001

    def __post_init__(self) -> None:
        check_delta(self.delta)

    def monitor(self, problem: StoppingProblem) -> Monitor:
        """See `StoppingRule.monitor`."""
        return monitor_with_lookahead(problem, self._may_stop)

    def _may_stop(self, state: VoteState, bound: VoteBound) -> Bool[Tensor, " n"]:
        # One class is the true mode; each of the K - 1 others may lead and be mistaken for it.
        threshold = math.log((state.scores.shape[1] - 1) / self.delta)
        lead, rival = (best[:, 0] for best in leads_and_rival_votes(state, bound, rivals=1))
        ratio = log_ratio_of_shares(rival + lead, rival)
        if not bound.is_one_hot:  # the mean of two supermartingales is a supermartingale
            ratio = torch.logaddexp(ratio, _smallest_ratio_of_leads(state, bound)) - math.log(2)
        return (ratio >= threshold) & (lead > 0)


def _smallest_ratio_of_leads(state: VoteState, bound: VoteBound) -> Float[Tensor, " n"]:
    """The log ratio against the rival that is hardest to exclude: the best one, or one whose scores vary more."""
    leads, variation = leads_and_variation(state, bound)
    ratios = log_ratio_of_leads(leads, variation + leads.square() / state.drawn)
    return ratios.scatter(1, state.scores.argmax(1, keepdim=True), torch.inf).amin(1)
