"""The shape checks themselves: they would notice."""

import pytest
import torch

from smoothed import votes
from smoothed.attacks import cross_entropy


def test_a_wrong_rank_and_a_wrong_length_are_noticed():
    with pytest.raises(TypeError, match="logits"):
        votes.soft(torch.zeros(3))
    with pytest.raises(TypeError, match="labels"):
        cross_entropy(torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64))
