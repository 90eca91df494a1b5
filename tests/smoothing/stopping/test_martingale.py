"""The ratios are supermartingales that begin at 1: by counting all orders of a box, and all sequences of a coin."""

import itertools
import math

import pytest
import torch

from smoothed.smoothing.stopping.martingale import (
    log_ratio_of_counts,
    log_ratio_of_leads,
    log_ratio_of_shares,
    log_ratio_of_sums,
)


def f(number):
    return torch.tensor(float(number), dtype=torch.float64)


@pytest.mark.parametrize("length", [1, 2, 5, 9])
def test_shares_have_a_mean_of_1_over_a_fair_coin(length):
    mean = sum(
        math.comb(length, ahead) * 2.0**-length * log_ratio_of_shares(f(ahead), f(length - ahead)).exp()
        for ahead in range(length + 1)
    )
    assert float(mean) == pytest.approx(1)


@pytest.mark.parametrize("length", [1, 3, 7, 8])
def test_counts_have_a_mean_of_at_most_1_over_the_orders_of_a_level_box(length):
    """A box of 4 and 4, nobody else: hypergeometric. Less than 1 once the mixture expects what the box hasn't got."""
    mean = 0.0
    for ahead in range(max(0, length - 4), min(4, length) + 1):
        chance = math.comb(4, ahead) * math.comb(4, length - ahead) / math.comb(8, length)
        box = math.perm(4, ahead) * math.perm(4, length - ahead) / math.perm(8, length)
        behind = length - ahead
        ratio = math.factorial(ahead) * math.factorial(behind) / math.factorial(length + 1) / box
        mean += chance * ratio
        if ahead > behind:
            assert float(log_ratio_of_counts(f(ahead), f(behind), 8 - length).exp()) == pytest.approx(ratio)
    assert mean == pytest.approx(1) if length <= 4 else mean < 1


def test_no_box_explains_what_exceeds_the_ratio_better():
    """All boxes in which the rival is not behind, of all sizes, for all counts of 24 draws."""
    total, close = 24, 0
    for drawn in range(1, total):
        for ahead in range(1, drawn + 1):
            for behind in range(min(ahead, drawn - ahead + 1)):
                ratio = float(log_ratio_of_counts(f(ahead), f(behind), total - drawn))
                if ratio <= 0:
                    continue
                mixture = math.lgamma(ahead + 1) + math.lgamma(behind + 1) - math.lgamma(ahead + behind + 2)
                used = math.exp(mixture - ratio)
                most = ahead + behind + total - drawn
                best = max(
                    (
                        math.perm(leader, ahead) * math.perm(rival, behind) / math.perm(leader + rival, ahead + behind)
                        for leader in range(ahead, most + 1)
                        for rival in range(max(leader, behind), most - leader + 1)
                    ),
                    default=0.0,
                )
                assert best <= used * (1 + 1e-9)
                close += best > 0
    assert close > 100


def test_the_best_rival_is_the_last_to_be_excluded():
    """At the same votes of the leader the ratio falls with those of the rival, so one comparison is enough."""
    for ahead in range(2, 40):
        behind = torch.arange(ahead, dtype=torch.float64)
        for ratio in (
            log_ratio_of_shares(torch.full_like(behind, ahead), behind),
            log_ratio_of_counts(torch.full_like(behind, ahead), behind, 100),
        ):
            assert (ratio.diff() < 0).all()


@pytest.mark.parametrize(
    "values", [[-1, 1, 1, -1, 0.5, -0.5], [1, -1, -1, 0.2, 0.3, 0.5], [-0.4, -0.3, 0.1, 0.6, 0, 0]]
)
def test_sums_have_a_mean_of_at_most_1_over_all_orders(values):
    orders = torch.tensor(list(itertools.permutations(values)), dtype=torch.float64)
    for drawn in range(1, len(values)):
        for delta in (0.9, 0.05):  # another scale of q
            ratio = log_ratio_of_sums(orders[:, :drawn].sum(1), drawn, len(values), delta).exp()
            assert float(ratio.mean()) <= 1 + 1e-9


def test_sums_exceed_1_over_delta_no_more_often_than_promised_and_not_much_more_seldom(generator):
    """40,000 orders of 200 differences that are up or down, as many of either."""
    total, delta = 200, 0.1
    values = torch.ones(total, dtype=torch.float64)
    values[::2] = -1
    order = torch.rand(40_000, total, generator=generator).argsort(1)
    leads = values[order].cumsum(1)
    ratio = torch.stack([log_ratio_of_sums(leads[:, n - 1], n, total, delta) for n in range(1, total)], 1)
    share = float((ratio.amax(1) >= -math.log(delta)).double().mean())
    assert delta / 4 < share < delta


@pytest.mark.parametrize(
    "law",
    [
        {1.0: 0.5, -1.0: 0.5},
        {0.1: 0.9, -0.9: 0.1},
        {0.9: 0.1, -0.1: 0.9},
        {1.0: 0.2, 0.0: 0.6, -1.0: 0.2},
        {0.3: 0.5, 0.1: 0.25, -0.7: 0.25},
    ],
    ids=str,
)
@pytest.mark.parametrize("length", [1, 2, 6])
def test_leads_have_a_mean_of_at_most_1_over_all_sequences_of_differences_of_mean_0(law, length):
    assert sum(value * chance for value, chance in law.items()) == pytest.approx(0)
    mean = 0.0
    for sequence in itertools.product(law, repeat=length):
        chance = math.prod(law[value] for value in sequence)
        mean += chance * float(log_ratio_of_leads(f(sum(sequence)), f(sum(value**2 for value in sequence))).exp())
    assert mean <= 1 + 1e-12
    assert mean > 0.2  # nor is it thrown away


def test_leads_that_hardly_differ_grow_nearly_as_fast_as_any_bet_could():
    """Draws of 0.2 each: the best bet without knowing the next draw, all of it on each, gains log 1.2 a draw."""
    gained = float(log_ratio_of_leads(f(0.2 * 200), f(0.04 * 200))) / 200
    assert math.log(1.2) / 2 < gained < math.log(1.2)
    # Where draws go up and down by all that they can, as fast as shares do.
    of_leads = float(log_ratio_of_leads(f(200), f(1000)))
    assert of_leads == pytest.approx(float(log_ratio_of_shares(f(600), f(400))), rel=0.15)


def test_more_squares_are_more_cautious():
    squares = torch.linspace(0, 40, 50, dtype=torch.float64)
    assert (log_ratio_of_leads(torch.full_like(squares, 12), squares).diff() < 0).all()
