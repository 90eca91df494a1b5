"""Stop once the leader is the most probable class."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smoothed.smoothing.stopping.ahead import looking_ahead
from smoothed.smoothing.stopping.arguments import check_delta
from smoothed.smoothing.stopping.martingale import log_ratio_of_leads, log_ratio_of_shares
from smoothed.smoothing.stopping.pairs import differences, pairs
from smoothed.smoothing.stopping.rule import Question, Seen, Watch
from smoothed.smoothing.votes import Bound


@dataclass(frozen=True)
class TrueMode:
    """An image stops once its leader is the true mode: the class with the highest expected score of a draw.

    For every image, whatever its class probabilities, the chance that it ever stops with another leader is at most
    `delta`, though it is looked at after every draw. What M draws would say plays no part. An image that is still open
    after M draws, whose `num_samples` are M, has their class and no such promise.

    Rivals are excluded one by one, each with delta / (K - 1), by the prior-posterior ratio (Waudby-Smith and Ramdas,
    2020). Scores that are no counts are taken for fractions of votes, and half of that ratio is given for one that sees
    how little they differ (Fan, Grama and Liu, 2015); both keep the promise. A vote whose bound is not known
    (`votes.bounded`) takes all draws.

    Args:
        delta: in (0, 1).

    Raises:
        ArgumentError: a delta outside (0, 1).
    """

    delta: float = 0.001

    def __post_init__(self) -> None:
        check_delta(self.delta)

    def watch(self, question: Question) -> Watch:
        """See `Stop`."""
        return looking_ahead(question, self._settles)

    def _settles(self, seen: Seen, bound: Bound) -> Bool[Tensor, " n"]:
        # The true mode is one rival; each of the others may lead and be taken for it.
        enough = math.log((seen.scores.shape[1] - 1) / self.delta)
        lead, rival = (best[:, 0] for best in pairs(seen, bound, rivals=1))
        ratio = log_ratio_of_shares(rival + lead, rival)
        if not bound.counts:  # half of each: the mean of two such ratios is one
            ratio = torch.logaddexp(ratio, _least_ratio_of_leads(seen, bound)) - math.log(2)
        return (ratio >= enough) & (lead > 0)


def _least_ratio_of_leads(seen: Seen, bound: Bound) -> Float[Tensor, " n"]:
    """Against the rival that is hardest to exclude: the best one, or one whose scores vary more."""
    leads, apart = differences(seen, bound)
    ratios = log_ratio_of_leads(leads, apart + leads.square() / seen.drawn)
    return ratios.scatter(1, seen.scores.argmax(1, keepdim=True), torch.inf).amin(1)
