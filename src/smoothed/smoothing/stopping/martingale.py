"""Sequential tests that remain valid when evaluated after every draw, based on nonnegative supermartingales.

Under the null hypothesis that the rival is not behind the leader, each ratio is a nonnegative supermartingale that
starts at 1. By Ville's inequality, the probability that it ever reaches 1 / delta is at most delta. Logarithms are
natural; tensors are float64.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

# Odds of the mixture. Odds within a factor of two of the optimum cost a few per cent of the ratio's growth.
_ODDS = tuple(4.0**power for power in range(-3, 4))


def log_ratio_of_shares(ahead: Float[Tensor, "*n"], behind: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the log ratio against the hypothesis that the rival is at least as probable as the leader.

    It is the prior-posterior ratio of Waudby-Smith and Ramdas (2020, "Confidence sequences for sampling without
    replacement", section 2) at a share of 1/2, here for draws with replacement and with a uniform prior on the leader's
    share of the two classes' votes. Shares below 1/2 explain x > y votes less well than 1/2, so the ratio at 1/2 is the
    smallest among all shares of the null hypothesis. Votes may be fractions s and t of a draw with s + t <= 1: the
    factor of a draw, (p / q)^s ((1 - p) / (1 - q))^t, is convex in (s, t), so its mean is at most that of whole votes,
    which is 1.

    Args:
        ahead: votes x of the leader.
        behind: votes y of the rival; the ratio is meaningful for y <= x only.

    Returns:
        The natural logarithm of the ratio, of the arguments' shape.
    """
    return _log_mixture(ahead, behind) + (ahead + behind) * math.log(2)


def log_ratio_of_leads(leads: Float[Tensor, "*n"], squares: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the log ratio against the hypothesis that the rival's expected score is at least the leader's.

    The ratio is meant for scores that are not counts. For independent differences d >= -1 whose mean is not positive,
    and each q in [0, 1), exp(q d + (q + log(1 - q)) d^2) <= 1 + q d has a mean of at most 1 (Fan, Grama and Liu, 2015,
    "Exponential inequalities for martingales with applications", lemma 4.1). The product over the draws is averaged
    over values of q with odds from 1/64 to 64. Smaller squares give a larger ratio, so nearly equal draws lead to an
    early decision.

    Args:
        leads: sum of d over the draws, d being the leader's score minus the rival's in units of the spread.
        squares: sum of d^2 over the draws, or an upper bound on it.

    Returns:
        The natural logarithm of the ratio, of the arguments' shape.
    """
    log_sum = torch.full_like(leads, -torch.inf)
    for odds in _ODDS:
        rate = odds / (1 + odds)
        log_sum = torch.logaddexp(log_sum, rate * leads + (rate + math.log1p(-rate)) * squares)
    return log_sum - math.log(len(_ODDS))


def log_ratio_of_counts(ahead: Float[Tensor, "*n"], behind: Float[Tensor, "*n"], left: int) -> Float[Tensor, "*n"]:
    """Return the log ratio against the hypothesis that the rival has at least as many of all M votes as the leader.

    Given the results of all M draws, their order is random, so the votes for the two classes are sampled from an urn
    without replacement, and the prior-posterior ratio of `log_ratio_of_shares` applies to the urn. Among all urns in
    which the rival is not behind, the observed votes are most probable for one in which the two classes have equal
    votes (up to one) and that contains all remaining draws.

    Args:
        ahead: votes x of the leader, whole numbers.
        behind: votes y of the rival, whole numbers; the ratio is meaningful for y <= x only.
        left: number of remaining draws, M - n.

    Returns:
        The natural logarithm of the ratio, of the arguments' shape; infinity if no such urn contains x votes for the
        leader.
    """
    urn = ahead + behind + left
    return _log_mixture(ahead, behind) - torch.maximum(_log_urn(ahead, behind, urn), _log_urn(ahead, behind, urn - 1))


def log_ratio_of_sums(leads: Float[Tensor, "*n"], drawn: int, total: int, delta: float) -> Float[Tensor, "*n"]:
    """Return the log ratio against the hypothesis that the rival's sum over all M draws is at least the leader's.

    The ratio is meant for scores that are not counts. Given the M differences, which lie in [-1, 1] and have a sum of
    at most 0, their order is random. Let L_n be the sum of the first n. Then L_n / (M - n) does not increase on
    average, and its next value lies in a range of width 2 / (M - n - 1). By Hoeffding's lemma,
    exp(q L_n / (M - n) - q^2 V_n / 2) is a supermartingale for each q >= 0, where V_n is the sum of 1 / (M - i)^2 over
    i = 1 .. n. The ratio averages it over a half-normal q. Any scale of q is valid; the one used here is optimal for
    decisions after about M / 8 draws.

    Args:
        leads: lead L_n after n draws, in units of the spread.
        drawn: number of draws n, n < M.
        total: total number of draws M.
        delta: level of the test, which determines the scale of q.

    Returns:
        The natural logarithm of the ratio, of the shape of `leads`.
    """
    scale = 2 * math.log(1 / delta) / _variance(max(1, total // 8), total)
    variance = 1 + scale * _variance(drawn, total)
    z = leads / (total - drawn) * math.sqrt(scale / variance)
    return z**2 / 2 - math.log(variance) / 2 + torch.special.log_ndtr(z) + math.log(2)


def _log_mixture(ahead: Tensor, behind: Tensor) -> Tensor:
    """Log probability of a sequence of x and y votes under a uniform share: log B(x + 1, y + 1)."""
    return _log_factorial(ahead) + _log_factorial(behind) - _log_factorial(ahead + behind + 1)


def _log_urn(ahead: Tensor, behind: Tensor, urn: Tensor) -> Tensor:
    """Log probability of a sequence from an urn of `urn` votes, half of them (rounded down) for the leader."""
    leader = (urn / 2).floor()
    rival = urn - leader
    log = _log_falling(leader, ahead) + _log_falling(rival, behind) - _log_falling(urn, ahead + behind)
    return torch.where((leader >= ahead) & (rival >= behind), log, -torch.inf)


def _log_falling(number: Tensor, factors: Tensor) -> Tensor:
    """Logarithm of the falling factorial number (number - 1) ... with the given number of factors."""
    return _log_factorial(number) - _log_factorial((number - factors).clamp_min(0))


def _log_factorial(number: Tensor) -> Tensor:
    return torch.lgamma(number + 1)


def _variance(drawn: int, total: int) -> float:
    """V_n of `log_ratio_of_sums`; 1 if the sum is empty."""
    return sum(1 / (total - i) ** 2 for i in range(1, drawn + 1) if i < total) or 1.0
