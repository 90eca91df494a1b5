"""The chance that a rival overtakes the leader, by the posterior predictive of a normal law: for scores, not counts.

What a draw adds to the leader's lead over one rival is taken to be normal, of unknown mean and deviation. The prior is
the conjugate one and worth w draws, which move the lead as much as a draw can: a spread up or down. After n draws with
a lead of L, and S the sum of squares of the distances of its steps from their mean, in units of the spread, the lead
after all M draws is then a Student's t of n + w degrees of freedom (Gelman et al., Bayesian Data Analysis, section
3.3). It is 0 at t below its middle:

    t = L sqrt((M + w) / ((n + w) (M - n))) / sigma,    (n + w) sigma^2 = S + w + L^2 w / (n (n + w)).

Draws that are all for one class of two are the counts of `posterior.py`; there both chances are near.
"""

import torch
from jaxtyping import Float
from scipy.special import stdtr
from torch import Tensor

from smoothed.smoothing.stopping.pairs import differences
from smoothed.smoothing.stopping.rule import Seen
from smoothed.smoothing.votes import Bound


def margins(seen: Seen, total: int, bound: Bound, weight: float) -> Float[Tensor, "n k"]:
    """How far each rival is from overtaking the leader: t, (N, K), float64; infinite for the leader itself.

    Args:
        seen: of the images.
        total: M, larger than the draws seen.
        bound: what one draw can do; its spread is finite and not 0.
        weight: w, above 0.
    """
    drawn = seen.drawn
    leads, apart = differences(seen, bound)
    prior = weight + leads.square() * (weight / (drawn * (drawn + weight)))
    sigma = ((apart + prior) / (drawn + weight)).sqrt()
    reach = ((total + weight) / ((drawn + weight) * (total - drawn))) ** 0.5
    return (leads * reach / sigma).scatter(1, seen.scores.argmax(1, keepdim=True), torch.inf)


def chance_of_change(margins: Float[Tensor, "n k"], freedom: float) -> Float[Tensor, " n"]:
    """The chances of all rivals added up, (N,): those beyond the second are taken for as near as that.

    Args:
        margins: t.
        freedom: n + w.
    """
    nearest = margins.topk(min(2, margins.shape[1] - 1), 1, largest=False).values
    chances = torch.from_numpy(stdtr(freedom, -nearest.cpu().numpy()))
    chances[:, 1:] *= margins.shape[1] - 2
    return chances.sum(1)
