"""Tests that may be looked at after every draw: ratios that ever exceed 1 / delta with a chance of at most delta.

Each is a nonnegative supermartingale that begins at 1 if the rival is in truth not behind, so by Ville's inequality it
ever reaches 1 / delta with a chance of at most delta. Logarithms are natural; tensors are float64.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

# A factor of two from the best odds costs a few percent of the ratio's growth.
_ODDS = tuple(4.0**power for power in range(-3, 4))


def log_ratio_of_shares(ahead: Float[Tensor, "*n"], behind: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Against a rival that is at least as probable: the prior-posterior ratio of a share of 1/2, its prior uniform.

    From Waudby-Smith and Ramdas (2020, "Confidence sequences for sampling without replacement", section 2), here for
    draws with replacement. A smaller share explains x > y votes less well than 1/2, so the ratio of 1/2 is the smallest
    of all those that have to be excluded. Votes may be fractions s and t of one draw, s + t <= 1: the factor of a draw,
    (p / q)^s ((1 - p) / (1 - q))^t, is convex in them, so its mean is at most that of whole votes, which is 1.

    Args:
        ahead: x, the votes of the leader.
        behind: y, those of the rival. Where y > x the ratio means nothing.
    """
    return _log_mixture(ahead, behind) + (ahead + behind) * math.log(2)


def log_ratio_of_leads(leads: Float[Tensor, "*n"], squares: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Against a rival whose expected score is at least the leader's, for scores that are no counts.

    Of independent differences d >= -1 without a positive mean, exp(q d + (q + log(1 - q)) d^2) <= 1 + q d has a mean of
    at most 1, for each q in [0, 1) (Fan, Grama and Liu, 2015, "Exponential inequalities for martingales with
    applications", lemma 4.1). Here the product over the draws is averaged over odds of q from 1/64 to 64. The smaller
    the squares, the larger the ratio: it sees how little draws differ.

    Args:
        leads: the sum of d, in units of the spread.
        squares: the sum of d^2, or more than that.
    """
    grown = torch.full_like(leads, -torch.inf)
    for odds in _ODDS:
        rate = odds / (1 + odds)
        grown = torch.logaddexp(grown, rate * leads + (rate + math.log1p(-rate)) * squares)
    return grown - math.log(len(_ODDS))


def log_ratio_of_counts(ahead: Float[Tensor, "*n"], behind: Float[Tensor, "*n"], left: int) -> Float[Tensor, "*n"]:
    """Against a rival that has at least as many of all M votes: the same ratio without replacement.

    Given what all M draws are, their order is random: votes for either come from a box without replacement. Of all
    boxes in which the rival is not behind, the one that explains a ratio above 1 best is level and has all draws that
    are left. Infinity where no box has x votes of the leader.

    Args:
        ahead: x, whole numbers.
        behind: y, whole numbers. Where y > x the ratio means nothing.
        left: M - n, the draws that are left.
    """
    box = ahead + behind + left
    return _log_mixture(ahead, behind) - torch.maximum(_log_box(ahead, behind, box), _log_box(ahead, behind, box - 1))


def log_ratio_of_sums(leads: Float[Tensor, "*n"], drawn: int, total: int, delta: float) -> Float[Tensor, "*n"]:
    """Against a rival whose sum over all M draws is at least the leader's, for scores that are no counts.

    Given the M differences, which lie within -1 and 1 and have no positive sum, their order is random. With L_n the
    sum of the first n, L_n / (M - n) falls or stays on average, and its next value lies in a range of 2 / (M - n - 1).
    So by Hoeffding's lemma exp(q L_n / (M - n) - q^2 V_n / 2), V_n the sum of 1 / (M - i)^2 over i = 1 .. n, is a
    supermartingale for each q >= 0. Here it is averaged over a half-normal q. Any scale of q is valid; this one is
    best for decisions after about M / 8 draws.

    Args:
        leads: L_n, in units of the spread.
        drawn: n < M.
        total: M.
        delta: what the ratio is to be compared with, for the scale.
    """
    scale = 2 * math.log(1 / delta) / _variance(max(1, total // 8), total)
    widened = 1 + scale * _variance(drawn, total)
    reach = leads / (total - drawn) * math.sqrt(scale / widened)
    return reach**2 / 2 - math.log(widened) / 2 + torch.special.log_ndtr(reach) + math.log(2)


def _log_mixture(ahead: Tensor, behind: Tensor) -> Tensor:
    """The probability of a sequence of so many votes if the share is uniform on [0, 1]: B(x + 1, y + 1)."""
    return _log_factorial(ahead) + _log_factorial(behind) - _log_factorial(ahead + behind + 1)


def _log_box(ahead: Tensor, behind: Tensor, box: Tensor) -> Tensor:
    """The probability of a sequence from a box with half of its votes, rounded down, for the leader."""
    leader = (box / 2).floor()
    rival = box - leader
    log = _log_falling(leader, ahead) + _log_falling(rival, behind) - _log_falling(box, ahead + behind)
    return torch.where((leader >= ahead) & (rival >= behind), log, -torch.inf)


def _log_falling(number: Tensor, steps: Tensor) -> Tensor:
    """Of number (number - 1) ... with so many factors."""
    return _log_factorial(number) - _log_factorial((number - steps).clamp_min(0))


def _log_factorial(number: Tensor) -> Tensor:
    return torch.lgamma(number + 1)


def _variance(drawn: int, total: int) -> float:
    return sum(1 / (total - i) ** 2 for i in range(1, drawn + 1) if i < total) or 1.0
