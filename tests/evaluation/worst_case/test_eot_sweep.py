"""When the sweep over draws stops, on votes made up for it."""

import math

import pytest
import torch

from smoothed.evaluation.fresh_votes import VoteCounts
from smoothed.evaluation.results import paired_gain
from smoothed.evaluation.worst_case.eot_sweep import chosen_eot_samples, sweep_eot_samples


def measuring(right_of):
    """A function from draws to ten votes an image, and the list of the draws that it was asked for."""
    asked = []

    def measure(draws):
        asked.append(draws)
        right = torch.tensor(right_of[draws])
        count, zeros = torch.full_like(right, 10), torch.zeros_like(right)
        return VoteCounts(count, right, count, right, zeros, zeros)

    return measure, asked


def test_it_stops_where_more_draws_gain_nothing():
    measure, asked = measuring({1: [10, 9] * 50, 4: [7, 6] * 50, 16: [7, 6, 6, 7] * 25, 64: [0, 0] * 50})
    rows = sweep_eot_samples(measure, (1, 4, 16, 64))
    assert asked == [1, 4, 16]
    assert [row.flat for row in rows] == [False, False, True]
    assert rows[1].gain == pytest.approx(0.3)
    assert rows[1].gain_interval == pytest.approx((0.3, 0.3))
    assert rows[2].gain == pytest.approx(0.0)
    assert rows[2].gain_interval[1] > 0
    assert chosen_eot_samples(rows) == 16  # as strong as 4, and the larger
    assert (rows[0].robust.mean, rows[0].images, rows[0].votes) == (pytest.approx(0.95), 100, 10)


def test_a_gain_within_its_interval_is_none():
    noisy = {1: [5] * 100, 4: [2, 8, 4, 5] * 25, 16: [0] * 100}
    measure, asked = measuring(noisy)
    rows = sweep_eot_samples(measure, (1, 4, 16))
    assert asked == [1, 4]
    assert rows[1].gain == pytest.approx(0.025)
    deviation = torch.tensor([0.3, -0.3, 0.1, 0.0] * 25, dtype=torch.float64).std()
    assert rows[1].gain_interval == pytest.approx((0.025 - 0.196 * float(deviation), 0.025 + 0.196 * float(deviation)))


def test_more_draws_that_are_weaker_are_not_taken():
    measure, asked = measuring({1: [5] * 20, 4: [8] * 20, 16: [0] * 20})
    rows = sweep_eot_samples(measure, (1, 4, 16))
    assert asked == [1, 4]
    assert [row.chosen for row in rows] == [True, False]


def test_a_sweep_that_never_gets_flat_takes_the_last_and_says_so():
    measure, _ = measuring({1: [9] * 20, 4: [6] * 20, 16: [3] * 20})
    rows = sweep_eot_samples(measure, (1, 4, 16))
    assert not any(row.flat for row in rows)
    assert chosen_eot_samples(rows) == 16
    assert rows[0].to_json()["gain"] is None


def test_the_interval_of_a_gain_covers_it():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        before, after = (torch.rand(60, generator=generator) for _ in range(2))
        low, high = paired_gain(before, after + 0.1)[1]
        covered += low <= -0.1 <= high
    assert abs(covered / 400 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 400)
