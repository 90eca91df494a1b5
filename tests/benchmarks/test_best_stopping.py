"""The bound of what rules can save, against costs that are known and against a rule."""

import importlib.util
from pathlib import Path

import pytest
import torch

from smoothed import votes
from smoothed.smoothing.stopping import Confident
from smoothing.stopping.streams import counts, run, winners

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def best_stopping():
    specification = importlib.util.spec_from_file_location("best_stopping", BENCHMARKS / "best_stopping.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_class_that_one_draw_tells_costs_one_draw_or_half_its_price(best_stopping):
    population = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64).numpy()
    assert best_stopping.least_costs(population, 20, [1.0, 1.9, 3.0, 1e4]) == pytest.approx([0.5, 0.95, 1, 1], abs=1e-3)


def test_two_coins_by_hand(best_stopping):
    """M = 3 of a fair coin: a guess is wrong half the time, after one draw a quarter, after two that agree never."""
    population = torch.tensor([[0.5, 0.5]], dtype=torch.float64).numpy()
    for price in (1.0, 3.0, 5.0, 100.0):
        after_one = min(price / 4, 1 + (0 + min(price / 2, 1)) / 2)
        expected = min(price / 2, 1 + after_one)
        assert best_stopping.least_costs(population, 3, [price])[0] == pytest.approx(expected, rel=1e-6)


def test_a_rule_stays_above_the_bound(best_stopping, generator):
    concentrations = torch.full((500, 3), 0.5)
    population = torch._sample_dirichlet(concentrations, generator=generator)
    scores = counts(population.repeat(8, 1), 4000, 60, generator)
    decided, drawn = run(Confident(0.02), votes.prediction, scores)
    changed = float((decided != winners(scores)).double().mean())
    fewest = best_stopping.fewest_draws(population.double().numpy(), 60, changed, [50, 100, 200, 400, 800, 1600])
    assert 0.6 * drawn.double().mean() < fewest < drawn.double().mean()
