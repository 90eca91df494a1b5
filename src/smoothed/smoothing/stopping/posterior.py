"""The chance that a rival overtakes the leader, by the posterior predictive of the counts.

The class probabilities of an image are taken to be Dirichlet, with weight alpha for each class. After n draws, x of
them for class a and y for class b, the next one is for a with probability (x + alpha) / (n + K alpha). So the chance
h_n(x, y) that b is not behind a after all M draws is a mean over one more draw:

    h_n(x, y) = P(a) h_(n+1)(x + 1, y) + P(b) h_(n+1)(x, y + 1) + P(neither) h_(n+1)(x, y),    h_M(x, y) = [y >= x].

That is solved backwards, exactly. The work grows with M^3, so beyond `MOST_EXACT` draws a bound takes its place. If b
ends in front, then by the symmetry of the prior b is the likelier of the two, with a chance of at least 1/2. Hence
h_n(x, y) <= 2 P(p_b > p_a | x, y), twice a tail of the Beta distribution, whatever M is.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.special import betainc
from torch import Tensor

MOST_EXACT = 1024
"""The largest M for which the chance is solved exactly."""

# A chance is known up to this factor: the table has the leads of delta, delta / 2^(1/4), delta / 2^(1/2), ...
_STEP = 2**0.25


@dataclass(frozen=True)
class ChanceTable:
    """The leads at which the chance of one rival falls to each of some levels.

    Attributes:
        leads: (T, Y, J): by the draws so far, or one row for all; by the rival's votes; by level.
        votes: (Y,), the rival's votes that each row stands for, ascending.
        classes: K.
    """

    leads: Int[Tensor, "t y j"]
    votes: Float[Tensor, " y"]
    classes: int

    def confident(self, leads: Float[Tensor, "n r"], rivals: Float[Tensor, "n r"], drawn: int) -> Bool[Tensor, " n"]:
        """Whether the chances of all rivals add up to at most delta, (N,).

        Args:
            leads: over the best rival and, of more than two classes, over the next one, (N, R).
            rivals: their votes, (N, R). All others are taken for as strong as the second of them.
            drawn: n.
        """
        leads, rivals = leads.cpu(), rivals.cpu()
        # Of two rivals as far behind the one with more votes has the better chance, so fractions go up to the next row.
        row = torch.bucketize(rivals - 1e-6, self.votes).clamp_max(len(self.votes) - 1)
        reached = (leads.unsqueeze(2) >= self.leads[min(drawn, len(self.leads) - 1)][row]).sum(2)
        chance = torch.where(reached > 0, _STEP ** (1.0 - reached), torch.inf)  # in units of delta
        chance[:, 1:] *= self.classes - 2
        return chance.sum(1) <= 1


@lru_cache(maxsize=8)
def chance_table(total: int, classes: int, delta: float, alpha: float) -> ChanceTable:
    """The table of M draws among K classes; its levels go down to where K - 2 rivals make no difference."""
    levels = delta / _STEP ** np.arange(16 + math.ceil(4 * math.log2(max(classes - 2, 1))))
    return (_exact if total <= MOST_EXACT else _bound)(total, classes, levels, alpha)


def _exact(total: int, classes: int, levels: np.ndarray, alpha: float) -> ChanceTable:
    """By the recursion. It runs on -h, which rises with x, so that levels can be searched for in its rows."""
    rows = total // 2 + 1
    leads = torch.full((total, rows, len(levels)), total + 1, dtype=torch.int16)
    thresholds = -torch.from_numpy(levels).float()
    x, y = torch.arange(total + 1.0), torch.arange(total + 1.0).unsqueeze(1)
    chance = -(y >= x).float()
    for drawn in range(total - 1, 0, -1):
        size = drawn + 1
        here = chance[:size, :size]
        change = (chance[:size, 1 : size + 1] - here).mul_(x[:size] + alpha)
        change.addcmul_(chance[1 : size + 1, :size] - here, y[:size] + alpha)
        chance = change.div_(drawn + classes * alpha).add_(here)
        seen = drawn // 2 + 1
        enough = torch.searchsorted(chance[:seen], thresholds.expand(seen, -1).contiguous())
        leads[drawn, :seen] = (enough - y[:seen]).clamp_min(1).to(torch.int16)
    return ChanceTable(leads, torch.arange(rows, dtype=torch.float64), classes)


def _bound(total: int, classes: int, levels: np.ndarray, alpha: float) -> ChanceTable:
    """By the tail, for some numbers of votes; those between take the next larger one."""
    votes = np.unique(np.ceil(np.append(np.geomspace(1, total // 2 + 1, 400), 0)))
    low = np.zeros((len(votes), len(levels)))
    high = np.full_like(low, total + 1)
    for _ in range(total.bit_length() + 1):
        lead = np.floor((low + high) / 2)
        enough = 2 * betainc(votes[:, None] + lead + alpha, votes[:, None] + alpha, 0.5) <= levels
        low, high = np.where(enough, low, lead), np.where(enough, lead, high)
    return ChanceTable(torch.from_numpy(high).long().unsqueeze(0), torch.from_numpy(votes), classes)
