"""What is read off a tally."""

import pytest
import torch

from smoothed.errors import ArgumentError
from smoothed.smoothing.tally import SMALLEST_SHARE, Tally


def tally(*rows):
    scores = torch.tensor(rows, dtype=torch.float32)
    return Tally(scores, torch.full((len(rows),), 4))


def test_shares_and_logarithms():
    counted = tally([3, 1, 0], [0, 0, 0])
    assert torch.allclose(counted.shares, torch.tensor([[0.75, 0.25, 0], [1 / 3, 1 / 3, 1 / 3]]))
    assert torch.allclose(counted.log_probs[0].exp(), torch.tensor([0.75, 0.25, SMALLEST_SHARE]))
    assert counted.log_probs.isfinite().all()


def test_ties_go_to_the_lowest_class():
    counted = tally([1, 2, 2], [0, 0, 4])
    assert counted.classes().tolist() == [1, 2]
    assert counted.tied.tolist() == [True, False]


def test_ties_split_at_random_evenly_and_never_to_a_loser(generator):
    counted = tally(*[[2, 1, 2]] * 4000)
    classes = counted.classes("random", generator)
    assert set(classes.tolist()) == {0, 2}
    assert abs((classes == 0).float().mean() - 0.5) < 0.03  # four deviations
    with pytest.raises(ArgumentError, match="ties: expected one of lowest, random"):
        Tally.classes.__wrapped__(counted, "first")
