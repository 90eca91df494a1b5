"""The schedule against the paper's numbers, and the two conditions against objectives made up to meet them."""

import pytest
import torch

from smoothed.attacks.max_loss.halving import Halving, checkpoints


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # p = 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99, by hand from the formula.
        (100, [22, 41, 57, 70, 80, 87, 93, 99]),
        (50, [11, 21, 29, 35, 40, 44, 47, 50]),
        (10, [3, 5, 6, 7, 8, 9, 10]),
        (1, [1]),
    ],
)
def test_checkpoints(steps, expected):
    assert checkpoints(steps) == expected


def sizes(values, steps=100):
    """The step size of one image after each checkpoint, of 1 at the start, from its objective after each step."""
    schedule = Halving(torch.ones(1, 1, 1, 1), torch.tensor(values[:1]), steps)
    found = []
    for step in range(1, steps + 1):
        rose = torch.tensor([values[step] > values[step - 1]])
        halved = schedule.after(step, rose, torch.tensor([max(values[: step + 1])]))
        assert (halved is None) == (step not in schedule.checkpoints)
        if halved is not None:
            assert halved.item() == (schedule.size.item() < (found[-1] if found else 1))
            found.append(schedule.size.item())
    return found


def test_a_steady_rise_keeps_the_size():
    assert sizes([float(step) for step in range(101)]) == [1.0] * 8


def test_too_few_rises_halve_it_each_time():
    """Every other step falls, and yet the highest value rises from checkpoint to checkpoint."""
    assert sizes([step + 3.0 * (step % 2) for step in range(101)]) == [0.5**n for n in range(1, 9)]


def test_three_quarters_of_rises_are_enough():
    """One fall in four, to a length of a multiple of four: 75 % of steps rise, which is not less than 75 %."""
    values = [0.0]
    for step in range(1, 101):
        values.append(values[-1] + (1.0 if step % 4 else -1.0))
    found = sizes(values)
    # The first has 17 rises of 22, more than 16.5; the second 14 of 19, less than 14.25.
    assert found[:2] == [1.0, 0.5]


def test_no_new_highest_halves_it_unless_it_was_just_halved():
    """Rising all the way, but below the first value."""
    values = [1000.0, *(float(step) for step in range(100))]
    assert sizes(values) == [0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625]


def test_each_image_has_its_own():
    schedule = Halving(torch.ones(2, 1, 1, 1), torch.zeros(2), 100)
    for step in range(1, 23):
        halved = schedule.after(step, torch.tensor([True, False]), torch.tensor([step, 0.0]))
    assert halved.tolist() == [False, True]
    assert schedule.size.flatten().tolist() == [1.0, 0.5]
