"""Confidence intervals of proportions, and means with standard deviations."""

import math
from collections.abc import Sequence
from typing import Literal

from scipy.special import ndtri
from scipy.stats import binomtest

from smoothed.errors import ArgumentError


def interval(
    successes: float, trials: int, confidence: float = 0.95, method: Literal["wilson", "exact"] = "wilson"
) -> tuple[float, float]:
    """Return the two-sided confidence interval of a proportion, by Wilson (1927) or Clopper and Pearson (1934).

    Args:
        successes: number of successes, in 0 .. trials; a mean over runs or over shares may be a fraction, which `exact`
            rounds to an integer.
        trials: number of trials, at least 1.
        confidence: confidence level, in (0, 1).
        method: `wilson` reaches the confidence level on average over proportions; `exact` (Clopper and Pearson) reaches
            it for every proportion and is wider.

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        ArgumentError: there are no trials, or `successes` is not in 0 .. trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ArgumentError(
            "successes", "a number in 0..trials, with at least one trial", f"{successes} of {trials} trials"
        )
    if method == "wilson" and successes != round(successes):
        return _wilson(successes / trials, trials, confidence)
    result = binomtest(round(successes), trials).proportion_ci(confidence, method=method)
    return float(result.low), float(result.high)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation (divisor n - 1) of `values`; a single value has deviation 0.

    Raises:
        ArgumentError: `values` is empty.
    """
    if not values:
        raise ArgumentError("values", "at least one number", "none")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, 0.0
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _wilson(share: float, trials: int, confidence: float) -> tuple[float, float]:
    """Wilson's interval of a share that is no whole number of successes, which scipy does not accept."""
    z = float(ndtri((1 + confidence) / 2))
    shrunk = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / shrunk
    half_width = z / shrunk * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return centre - half_width, centre + half_width
