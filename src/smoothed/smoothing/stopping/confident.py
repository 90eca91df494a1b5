"""Stop once all draws would hardly give another class."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from smoothed.smoothing.stopping.ahead import looking_ahead
from smoothed.smoothing.stopping.arguments import check_delta, check_weight
from smoothed.smoothing.stopping.exact import Exact
from smoothed.smoothing.stopping.martingale import log_ratio_of_counts, log_ratio_of_sums
from smoothed.smoothing.stopping.normal import chance_of_change, margins
from smoothed.smoothing.stopping.pairs import pairs
from smoothed.smoothing.stopping.posterior import chance_table
from smoothed.smoothing.stopping.rule import Question, Seen, Watch
from smoothed.smoothing.votes import Bound
from smoothed.utils.checks import check_choice

Guarantee = Literal["average", "each"]


@dataclass(frozen=True)
class Confident:
    """An image stops once the chance that all M draws give it another class is at most `delta`.

    Args:
        delta: in (0, 1).
        guarantee: what the chance is of.

            `average`: the posterior predictive of this image's votes. It is right on average over images that are like
            those of the prior, and as right for other images as they resemble those. Of images that are all close to a
            tie more than `delta` may change; what changes is then decided by few votes.

            `each`: the order of an image's draws alone. It holds for every image, whatever its class probabilities. It
            takes about one and a half times the draws for `prediction` votes (`benchmarks/stopping.py`), and more for
            others.
        prior_weight: of `average`: how many draws the prior is worth. A smaller one trusts the first draws more. For
            `prediction` votes it is a Dirichlet distribution with this weight in all, the same for each class; one draw
            is the reference prior of Perks (1947), for two classes that of Jeffreys. For others it is draws that move a
            lead by all that they can.

    The chances of several rivals are added up, and a tie counts as a change. Of `prediction` votes `average` knows the
    law; scores of other votes are taken to be normal, of a mean and a deviation that the draws tell. Where draws are
    much alike, but a rare one turns the vote by all that it can, more than `delta` may change. A vote whose bound is
    not known (`votes.bounded`) takes all draws.

    Raises:
        ArgumentError: a delta outside (0, 1), an unknown guarantee, or a weight that is not positive.
    """

    delta: float = 0.001
    guarantee: Guarantee = "average"
    prior_weight: float = 1.0

    def __post_init__(self) -> None:
        check_delta(self.delta)
        check_choice(self.guarantee, ("average", "each"), "guarantee")
        check_weight(self.prior_weight)

    def watch(self, question: Question) -> Watch:
        """See `Stop`."""
        settles = self._by_prior if self.guarantee == "average" else self._by_order
        confident, exact = looking_ahead(question, partial(settles, question.total)), Exact().watch(question)

        def needs(seen: Seen) -> Int[Tensor, " n"]:
            return torch.minimum(confident(seen), exact(seen))

        return needs

    def _by_prior(self, total: int, seen: Seen, bound: Bound) -> Bool[Tensor, " n"]:
        classes, weight = seen.scores.shape[1], self.prior_weight
        if bound.counts:
            table = chance_table(total, classes, self.delta, weight / classes)
            return table.confident(*pairs(seen, bound, rivals=2), seen.drawn)
        return chance_of_change(margins(seen, total, bound, weight), seen.drawn + weight) <= self.delta

    def _by_order(self, total: int, seen: Seen, bound: Bound) -> Bool[Tensor, " n"]:
        # One rival has the most of all M votes; each of the others may lead and be taken for the winner.
        drawn, delta = seen.drawn, self.delta / (seen.scores.shape[1] - 1)
        lead, rival = (best[:, 0] for best in pairs(seen, bound, rivals=1))
        if bound.counts:
            ratio = log_ratio_of_counts(rival + lead, rival, total - drawn)
        else:
            ratio = log_ratio_of_sums(lead, drawn, total, delta)
        return (ratio >= -math.log(delta)) & (lead > 0)
