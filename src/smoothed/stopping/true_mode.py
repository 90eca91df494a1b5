"""Stop once the leader is the most probable class."""

import math
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from smoothed.stopping.ahead import looking_ahead
from smoothed.stopping.arguments import check_delta
from smoothed.stopping.martingale import log_ratio_of_shares
from smoothed.stopping.pairs import pairs
from smoothed.stopping.rule import Question, Watch
from smoothed.votes import Bound


@dataclass(frozen=True)
class TrueMode:
    """An image stops once its leader is the true mode: the class with the highest expected score of a draw.

    For every image, whatever its class probabilities, the chance that it ever stops with another leader is at most
    `delta`, though it is looked at after every draw. What M draws would say plays no part. An image that is still open
    after M draws, whose `num_samples` are M, has their class and no such promise.

    Rivals are excluded one by one, each with delta / (K - 1), by the prior-posterior ratio (Waudby-Smith and Ramdas,
    2020). Scores that are no counts are taken for fractions of votes, which keeps the promise. A vote whose bound is
    not known (`votes.bounded`) takes all draws.

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

    def _settles(self, scores: Float[Tensor, "n k"], drawn: int, bound: Bound) -> Bool[Tensor, " n"]:
        # The true mode is one rival; each of the others may lead and be taken for it.
        lead, rival = (best[:, 0] for best in pairs(scores, drawn, bound, rivals=1))
        return (log_ratio_of_shares(rival + lead, rival) >= math.log((scores.shape[1] - 1) / self.delta)) & (lead > 0)
