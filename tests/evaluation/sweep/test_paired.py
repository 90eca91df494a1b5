"""Tests of paired outcomes against hand-computed cases, a closed form and a simulation."""

from math import comb, sqrt

import pytest
import torch

from smoothed.evaluation.sweep.paired import Comparison, may_be_best, sign_test


def test_the_test_of_mcnemar_by_hand():
    # 9 of 10 discordant images: (C(10, 0) + C(10, 1)) / 2^10 on each side.
    assert sign_test(9, 1) == sign_test(1, 9) == pytest.approx(2 * 11 / 1024)
    assert sign_test(5, 0) == pytest.approx(2 / 32)
    assert sign_test(3, 3) == sign_test(0, 0) == 1.0
    assert sign_test(80, 120) == pytest.approx(2 * sum(comb(200, k) for k in range(81)) / 2**200)


def test_a_comparison_by_hand():
    first = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0, 1, 0]]).bool()
    second = torch.tensor([[1, 1, 0, 0, 0, 0, 1, 0, 0, 0]]).bool()
    compared = Comparison.of(first, second)
    assert (compared.wins, compared.losses) == (5, 1)
    assert compared.p == pytest.approx(2 * 7 / 64)
    assert not compared.significant
    deviation = sqrt((5 * (1 - 0.4) ** 2 + (-1 - 0.4) ** 2 + 4 * 0.4**2) / 9)
    assert compared.gain == pytest.approx(0.4)
    assert compared.gain_interval == pytest.approx(
        (0.4 - 1.96 * deviation / sqrt(10), 0.4 + 1.96 * deviation / sqrt(10))
    )
    assert Comparison.of(second, first).gain == pytest.approx(-0.4)


def test_over_runs_an_image_counts_once():
    first = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 0]]).bool()
    second = torch.tensor([[0, 1, 1], [0, 1, 1], [0, 0, 0]]).bool()
    compared = Comparison.of(first, second)
    assert (compared.wins, compared.losses) == (1, 2)
    assert compared.gain == pytest.approx((3 - 1 - 2) / 9)


def test_what_is_clearly_worse_is_left_out_and_what_is_equal_stays():
    right = torch.zeros(4, 1, 100, dtype=torch.bool)
    right[0, 0, :60] = True
    right[1, 0, :60] = True  # as the first, image by image
    right[2, 0, 1:62] = True  # 1 image lost, 2 won
    right[3, 0, :50] = True  # 10 lost to the first, none won
    assert may_be_best(right).tolist() == [True, True, True, False]
    assert may_be_best(right, level=3 / 2**10 - 1e-9).tolist() == [True, True, True, True]  # of three rivals
    assert may_be_best(right, level=3 / 2**10 + 1e-9).tolist() == [True, True, True, False]
    assert may_be_best(right[:1]).tolist() == [True]


def test_the_set_misses_the_best_as_seldom_as_it_says():
    """All settings are equally good, and any one is declared the best beforehand."""
    generator = torch.Generator().manual_seed(0)
    held = []
    for _ in range(400):
        hard = torch.rand(1, 1, 150, generator=generator)
        held.append(may_be_best(torch.rand(6, 1, 150, generator=generator) > hard)[0])
    missed = 1 - sum(map(float, held)) / 400
    assert 0 < missed <= 0.05


def test_the_set_finds_a_real_peak():
    generator = torch.Generator().manual_seed(1)
    chances = torch.tensor([0.5, 0.6, 0.75, 0.6, 0.5]).view(5, 1, 1)
    assert may_be_best(torch.rand(5, 1, 500, generator=generator) < chances).tolist() == [
        False,
        False,
        True,
        False,
        False,
    ]
