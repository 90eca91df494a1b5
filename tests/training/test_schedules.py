"""Learning rates at the points that define them."""

import pytest

from smoothed.training.schedules import one_cycle, steps


def test_steps_are_the_papers():
    at = [steps(epoch / 400) for epoch in (0, 199, 200, 299, 300, 399)]
    assert at == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_one_cycle_rises_to_one_and_falls_to_zero():
    assert [one_cycle(p) for p in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    falling = [one_cycle(0.2 + 0.8 * i / 50) for i in range(51)]
    assert falling == sorted(falling, reverse=True)
