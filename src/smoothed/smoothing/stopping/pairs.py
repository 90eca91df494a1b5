"""The leader against its rivals: as if each draw voted for one of the two or for neither, and as their scores vary."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.smoothing.stopping.rule import ROUNDING, Seen
from smoothed.smoothing.votes import Bound


def pairs(seen: Seen, bound: Bound, rivals: int) -> tuple[Float[Tensor, "n r"], Float[Tensor, "n r"]]:
    """The leader's lead over its best rivals, and the votes of those, float64.

    Scores that are no counts are taken for fractions of votes, which vary more. Shares of one vote vary most, for the
    same mean, if one class takes all of it: they are votes as they are. Of other scores only the spread is known. Their
    difference varies most if each draw moves it by all of the spread, up or down: a lead of L spreads after n draws is
    taken for (n + L) / 2 votes against (n - L) / 2.

    Args:
        seen: of the images.
        bound: what one draw can do; its spread is finite.
        rivals: R, how many to compare with; fewer where there are fewer.

    Returns:
        The leads and the rivals' votes, (N, R), the best rival first.
    """
    best = seen.scores.to(torch.float64).topk(min(rivals + 1, seen.scores.shape[1])).values
    leads = (best[:, :1] - best[:, 1:]) / bound.spread
    return leads, best[:, 1:] if bound.shares else (seen.drawn - leads) / 2


def differences(seen: Seen, bound: Bound) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    """The leader's lead over each class, and how much the differences of the draws vary at most, float64.

    What is kept are the squares of each class's scores, not those of their differences. So the root of what they vary
    is taken for the most that it can be, by Minkowski's inequality: the sum of the roots for either class.

    Args:
        seen: of the images.
        bound: what one draw can do; its spread is finite and not 0.

    Returns:
        The leads, and for each the sum of squares of the distances of the draws' differences from their mean, (N, K),
        in units of the spread. The leader's lead over itself is 0.
    """
    scores, squares = seen.scores.double() / bound.spread, seen.squares.double() / bound.spread**2
    first = scores.argmax(1, keepdim=True)
    # What rounding may hide, where scores are large beside their spread, counts as variation.
    hidden = 4 * ROUNDING * scores.square()
    apart = ((squares - scores.square() / seen.drawn).clamp_min(0) + hidden).sqrt()
    return scores.gather(1, first) - scores, (apart.gather(1, first) + apart).square()
