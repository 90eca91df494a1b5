"""Answers to votes: order, ties, and intervals beside those of the package."""

import pytest
import torch

from smoothed.serve.answers import answer, bounds_of_shares
from smoothed.serve.turns import VoteOutcome
from smoothed.smoothing.tally import Tally
from smoothed.smoothing.votes import VOTES
from smoothed.utils.intervals import interval


@pytest.mark.parametrize("scores", [[0, 0, 7], [3, 4, 0], [20.0, 44.0, 0.0], [1, 0, 0]])
def test_intervals_are_those_of_the_package(scores):
    draws = int(sum(scores))
    tally = Tally(torch.tensor([scores], dtype=torch.float32), torch.tensor([draws]))
    found = bounds_of_shares(tally, VOTES["prediction"])
    assert found == [pytest.approx(interval(score, draws), abs=1e-6) for score in scores]


def test_the_soft_vote_has_the_interval_of_a_mean_and_the_weighted_vote_none():
    tally = Tally(torch.tensor([[2.5, 5.5]]), torch.tensor([8]))
    assert bounds_of_shares(tally, VOTES["soft"]) == [pytest.approx(interval(s, 8), abs=1e-6) for s in (2.5, 5.5)]
    assert bounds_of_shares(tally, VOTES["weighted"]) is None


def test_the_best_share_comes_first_and_ties_go_to_the_lowest_class():
    tally = Tally(torch.tensor([[1.0, 3.0, 3.0]]), torch.tensor([7]))
    told = answer(VoteOutcome(tally, "exact"), VOTES["prediction"], ("a", "b", "c"), seconds=0.5)
    assert [share["class"] for share in told["shares"]] == [1, 2, 0]
    assert (told["class"], told["class_name"], told["margin"]) == (1, "b", 0.0)
    assert (told["draws"], told["ended"], told["seconds"]) == (7, "exact", 0.5)
    assert told["shares"][0]["share"] == round(3 / 7, 6)
