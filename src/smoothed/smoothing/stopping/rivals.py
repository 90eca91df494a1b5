"""The leader's lead over its rivals, with the rivals' votes or with the variation of the draws."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.smoothing.stopping.rule import UNIT_ROUNDOFF, VoteState
from smoothed.smoothing.votes import VoteBound


def leads_and_rival_votes(
    state: VoteState, bound: VoteBound, rivals: int
) -> tuple[Float[Tensor, "n r"], Float[Tensor, "n r"]]:
    """Return the leader's lead over its best rivals and the votes of these rivals.

    Scores that are not counts are converted to votes of the largest possible variance. Scores that sum to 1 have the
    largest variance for a given mean if one class gets all of it, so their sums are used as votes. For other scores
    only the spread is known: their difference varies most if each draw changes it by the whole spread, up or down, so a
    lead of L spreads after n draws is converted to (n + L) / 2 votes for the leader and (n - L) / 2 for the rival.

    Args:
        state: scores of the images.
        bound: the vote's bound, with a finite spread.
        rivals: number of rivals R to compare with; at most K - 1 are returned.

    Returns:
        Leads in units of the spread and the rivals' votes, each (N, R), float64, best rival first.
    """
    best = state.scores.to(torch.float64).topk(min(rivals + 1, state.scores.shape[1])).values
    leads = (best[:, :1] - best[:, 1:]) / bound.spread
    return leads, best[:, 1:] if bound.sums_to_one else (state.drawn - leads) / 2


def leads_and_variation(state: VoteState, bound: VoteBound) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    """Return the leader's lead over each class and an upper bound on the variation of the draws' differences.

    The state holds the squares of each class's scores, but not those of their differences. By Minkowski's inequality,
    the root of a difference's sum of squared deviations is at most the sum of the two classes' roots.

    Args:
        state: scores of the images.
        bound: the vote's bound, with a finite spread above 0.

    Returns:
        Leads (N, K) in units of the spread, 0 for the leader itself, and the bound on the sum of squared deviations of
        the draws' differences from their mean, (N, K), in squared units of the spread; both float64.
    """
    scores, squares = state.scores.double() / bound.spread, state.squares.double() / bound.spread**2
    first = scores.argmax(1, keepdim=True)
    # If scores are large compared with their spread, rounding can hide variation; its maximum is added.
    rounding_error = 4 * UNIT_ROUNDOFF * scores.square()
    deviation = ((squares - scores.square() / state.drawn).clamp_min(0) + rounding_error).sqrt()
    return scores.gather(1, first) - scores, (deviation.gather(1, first) + deviation).square()
