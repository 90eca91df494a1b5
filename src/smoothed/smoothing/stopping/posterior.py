"""The posterior predictive probability that a rival overtakes the leader, for votes that are counts.

The class probabilities of an image have a symmetric Dirichlet prior with weight alpha per class. After n draws, x of
them for class a and y for class b, the next draw is for a with probability (x + alpha) / (n + K alpha). The probability
h_n(x, y) that b is not behind a after all M draws therefore satisfies a recursion over the next draw:

    h_n(x, y) = P(a) h_(n+1)(x + 1, y) + P(b) h_(n+1)(x, y + 1) + P(neither) h_(n+1)(x, y),    h_M(x, y) = [y >= x].

It is solved backwards, exactly. The cost grows with M^3, so for more than `MAX_EXACT_DRAWS` draws a bound replaces the
solution: if b is in front after M draws, then by the symmetry of the prior p_b > p_a has a posterior probability of at
least 1/2. Hence h_n(x, y) <= 2 P(p_b > p_a | x, y), twice a tail of a Beta distribution, for every M.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.special import betainc
from torch import Tensor

MAX_EXACT_DRAWS = 1024
"""The largest M for which the recursion is solved exactly."""

# Ratio of successive probability levels in a table: delta, delta / 2^(1/4), delta / 2^(1/2), ...
_STEP = 2**0.25


@dataclass(frozen=True)
class ChanceTable:
    """The smallest leads for which the probability of being overtaken by one rival is at most given levels.

    Attributes:
        leads: leads (T, Y, J), by number of draws (or T = 1 for all numbers), rival's votes and probability level.
        votes: rival's votes (Y,) of each row, ascending.
        classes: number of classes K.
    """

    leads: Int[Tensor, "t y j"]
    votes: Float[Tensor, " y"]
    classes: int

    def confident(self, leads: Float[Tensor, "n r"], rivals: Float[Tensor, "n r"], drawn: int) -> Bool[Tensor, " n"]:
        """Return whether the probabilities that a rival overtakes sum to at most delta, (N,) bool on the CPU.

        Args:
            leads: leads over the best rival and, with more than two classes, over the second best, (N, R).
            rivals: votes of these rivals, (N, R). All further rivals are counted as being as strong as the second.
            drawn: number of draws n so far.
        """
        leads, rivals = leads.cpu(), rivals.cpu()
        # At equal leads the rival with more votes is more likely to overtake, so rounding votes up is conservative.
        row = torch.bucketize(rivals - 1e-6, self.votes).clamp_max(len(self.votes) - 1)
        levels_reached = (leads.unsqueeze(2) >= self.leads[min(drawn, len(self.leads) - 1)][row]).sum(2)
        chance = torch.where(levels_reached > 0, _STEP ** (1.0 - levels_reached), torch.inf)  # in units of delta
        chance[:, 1:] *= self.classes - 2
        return chance.sum(1) <= 1


@lru_cache(maxsize=8)
def chance_table(total: int, classes: int, delta: float, alpha: float) -> ChanceTable:
    """Compute the table of leads for a vote of M draws.

    Args:
        total: total number of draws M.
        classes: number of classes K.
        delta: maximum probability that a rival overtakes, in (0, 1). The lowest level of the table is small enough to
            be negligible even when multiplied by K - 2 rivals.
        alpha: weight of each class in the Dirichlet prior.
    """
    levels = delta / _STEP ** np.arange(16 + math.ceil(4 * math.log2(max(classes - 2, 1))))
    return (_exact if total <= MAX_EXACT_DRAWS else _beta_bound)(total, classes, levels, alpha)


def _exact(total: int, classes: int, levels: np.ndarray, alpha: float) -> ChanceTable:
    """Solve the recursion, for -h rather than h: its rows increase with x, as `searchsorted` requires."""
    rows = total // 2 + 1
    leads = torch.full((total, rows, len(levels)), total + 1, dtype=torch.int16)
    thresholds = -torch.from_numpy(levels).float()
    x, y = torch.arange(total + 1.0), torch.arange(total + 1.0).unsqueeze(1)
    chance = -(y >= x).float()
    for drawn in range(total - 1, 0, -1):
        size = drawn + 1
        unchanged = chance[:size, :size]
        change = (chance[:size, 1 : size + 1] - unchanged).mul_(x[:size] + alpha)
        change.addcmul_(chance[1 : size + 1, :size] - unchanged, y[:size] + alpha)
        chance = change.div_(drawn + classes * alpha).add_(unchanged)
        rows_behind = drawn // 2 + 1  # a rival behind the leader has at most half of the votes
        smallest_votes = torch.searchsorted(chance[:rows_behind], thresholds.expand(rows_behind, -1).contiguous())
        leads[drawn, :rows_behind] = (smallest_votes - y[:rows_behind]).clamp_min(1).to(torch.int16)
    return ChanceTable(leads, torch.arange(rows, dtype=torch.float64), classes)


def _beta_bound(total: int, classes: int, levels: np.ndarray, alpha: float) -> ChanceTable:
    """Bound by the Beta tail on a grid of the rival's votes; votes between grid points use the next larger one."""
    votes = np.unique(np.ceil(np.append(np.geomspace(1, total // 2 + 1, 400), 0)))
    low = np.zeros((len(votes), len(levels)))
    high = np.full_like(low, total + 1)
    for _ in range(total.bit_length() + 1):
        lead = np.floor((low + high) / 2)
        suffices = 2 * betainc(votes[:, None] + lead + alpha, votes[:, None] + alpha, 0.5) <= levels
        low, high = np.where(suffices, low, lead), np.where(suffices, lead, high)
    return ChanceTable(torch.from_numpy(high).long().unsqueeze(0), torch.from_numpy(votes), classes)
