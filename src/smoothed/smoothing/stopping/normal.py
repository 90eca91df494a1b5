"""The posterior predictive probability that a rival overtakes the leader, under a normal model of scores.

The increment that a draw adds to the leader's lead over one rival is modelled as normal with unknown mean and variance.
The conjugate prior has the weight of w draws, each of which changes the lead by one spread, up or down. Let L be the
lead after n draws and S the sum of squared deviations of the increments from their mean, in units of the spread. The
lead after all M draws then has a Student t distribution with n + w degrees of freedom (Gelman et al., Bayesian Data
Analysis, section 3.3), and a lead of 0 lies t scale units below its centre:

    t = L sqrt((M + w) / ((n + w) (M - n))) / sigma,    (n + w) sigma^2 = S + w + L^2 w / (n (n + w)).

For draws that each vote for one of two classes, the exact model is that of `posterior.py`, and both give similar
probabilities.
"""

import torch
from jaxtyping import Float
from scipy.special import stdtr
from torch import Tensor

from smoothed.smoothing.stopping.rivals import leads_and_variation
from smoothed.smoothing.stopping.rule import VoteState
from smoothed.smoothing.votes import VoteBound


def margins(state: VoteState, total: int, bound: VoteBound, weight: float) -> Float[Tensor, "n k"]:
    """Return the statistic t of each class as a rival of the leader: the larger, the less likely it overtakes.

    Args:
        state: scores of the images after n draws.
        total: total number of draws M, larger than n.
        bound: the vote's bound, with a finite spread above 0.
        weight: weight w of the prior in draws, above 0.

    Returns:
        Statistics t, (N, K), float64; infinity for the leader itself.
    """
    drawn = state.drawn
    leads, variation = leads_and_variation(state, bound)
    prior = weight + leads.square() * (weight / (drawn * (drawn + weight)))
    sigma = ((variation + prior) / (drawn + weight)).sqrt()
    scale = ((total + weight) / ((drawn + weight) * (total - drawn))) ** 0.5
    return (leads * scale / sigma).scatter(1, state.scores.argmax(1, keepdim=True), torch.inf)


def chance_of_change(margins: Float[Tensor, "n k"], freedom: float) -> Float[Tensor, " n"]:
    """Bound the probability that any rival overtakes the leader by the sum over rivals.

    Rivals beyond the second closest are counted as being as close as the second.

    Args:
        margins: statistics t from `margins`, (N, K).
        freedom: degrees of freedom, n + w.

    Returns:
        Sums of probabilities, (N,), float64 on the CPU.
    """
    closest = margins.topk(min(2, margins.shape[1] - 1), 1, largest=False).values
    chances = torch.from_numpy(stdtr(freedom, -closest.cpu().numpy()))
    chances[:, 1:] *= margins.shape[1] - 2
    return chances.sum(1)
