"""The leader against its best rivals, as if each draw voted for one of the two or for neither."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.votes import Bound


def pairs(
    scores: Float[Tensor, "n k"], drawn: int, bound: Bound, rivals: int
) -> tuple[Float[Tensor, "n r"], Float[Tensor, "n r"]]:
    """The leader's lead over its best rivals, and the votes of those, float64.

    Scores that are no counts are taken for fractions of votes, which vary more. Shares of one vote vary most, for the
    same mean, if one class takes all of it: they are votes as they are. Of other scores only the spread is known. Their
    difference varies most if each draw moves it by all of the spread, up or down: a lead of L spreads after n draws is
    taken for (n + L) / 2 votes against (n - L) / 2.

    Args:
        scores: (N, K), of `drawn` draws.
        drawn: n.
        bound: what one draw can do; its spread is finite.
        rivals: R, how many to compare with; fewer where there are fewer.

    Returns:
        The leads and the rivals' votes, (N, R), the best rival first.
    """
    best = scores.to(torch.float64).topk(min(rivals + 1, scores.shape[1])).values
    leads = (best[:, :1] - best[:, 1:]) / bound.spread
    return leads, best[:, 1:] if bound.shares else (drawn - leads) / 2
