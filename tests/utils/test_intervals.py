"""Intervals against their closed forms and their coverage."""

import math

import pytest
from scipy.stats import beta, binom, norm

from smoothed.errors import ArgumentError
from smoothed.utils.intervals import interval, mean_and_deviation


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (4.9, 8), (480, 1000), (1000, 1000)])
def test_wilson_is_its_closed_form(successes, trials):
    z, share = norm.ppf(0.975), successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    assert interval(successes, trials) == pytest.approx((max(0, centre - half), min(1, centre + half)), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (480, 1000), (1000, 1000)])
def test_exact_is_clopper_and_pearson(successes, trials):
    low = beta.ppf(0.025, successes, trials - successes + 1) if successes else 0
    high = beta.ppf(0.975, successes + 1, trials - successes) if successes < trials else 1
    assert interval(successes, trials, method="exact") == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_exact_always_covers(share):
    covered = sum(
        binom.pmf(count, 60, share)
        for count in range(61)
        if interval(count, 60, method="exact")[0] <= share <= interval(count, 60, method="exact")[1]
    )
    assert covered >= 0.95


def test_mean_and_deviation():
    assert mean_and_deviation([1.0]) == (1.0, 0.0)
    assert mean_and_deviation([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))


def test_bad_counts():
    with pytest.raises(ArgumentError, match="successes: expected"):
        interval(3, 2)
    with pytest.raises(ArgumentError, match="successes: expected"):
        interval(0, 0)
    with pytest.raises(ArgumentError, match="values: expected at least one"):
        mean_and_deviation([])
