"""Intervals and deviations of measured shares; the mathematics is scipy's."""

import math
from collections.abc import Sequence
from typing import Literal

from scipy.stats import binomtest

from smoothed.errors import ArgumentError


def interval(
    successes: float, trials: int, confidence: float = 0.95, method: Literal["wilson", "exact"] = "wilson"
) -> tuple[float, float]:
    """The confidence interval of a share, by Wilson (1927) or Clopper and Pearson (`exact`).

    Args:
        successes: 0 .. trials; a mean over runs is rounded to whole images.
        trials: images, at least 1.
        confidence: in (0, 1).
        method: `wilson` covers on average, `exact` always, at the price of width.

    Raises:
        ArgumentError: no trials, or more successes than trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ArgumentError("successes", "0 to trials, of at least one trial", f"{successes} of {trials}")
    result = binomtest(round(successes), trials).proportion_ci(confidence, method=method)
    return float(result.low), float(result.high)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the sample deviation (n - 1) of `values`; the deviation of one value is 0.

    Raises:
        ArgumentError: no values.
    """
    if not values:
        raise ArgumentError("values", "at least one", "none")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, 0.0
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
