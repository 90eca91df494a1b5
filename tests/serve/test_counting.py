"""The count of one image against sums over its whole stream, whatever the pieces in which draws arrive."""

import pytest
import torch

from smoothed.errors import ArgumentError
from smoothed.serve.counting import Count
from smoothed.smoothing.stopping import Confident, Exact
from smoothed.smoothing.votes import VOTES

TOTAL, CLASSES = 40, 3


@pytest.fixture
def stream(generator):
    """Logits of all draws, (M, K), whose first class wins often."""
    return torch.randn(TOTAL, CLASSES, generator=generator) + torch.tensor([0.7, 0.0, 0.0])


def first_certain(stream):
    """The smallest n after which no completion changes the winner of the prediction vote, by trying each rival."""
    for drawn in range(1, TOTAL):
        counts = torch.bincount(stream[:drawn].argmax(1), minlength=CLASSES)
        winner, left = int(counts.argmax()), TOTAL - drawn
        reach = [int(counts[rival]) + left for rival in range(CLASSES)]
        if all(
            reach[rival] < counts[winner] if rival < winner else reach[rival] <= counts[winner]
            for rival in range(CLASSES)
            if rival != winner
        ):
            return drawn
    return TOTAL


@pytest.mark.parametrize("piece", [1, 3, 16, TOTAL])
def test_the_exact_rule_stops_where_nothing_can_change(stream, piece):
    count = Count(VOTES["prediction"], TOTAL, Exact())
    for part in stream.split(piece):
        count.add(part)
    expected = first_certain(stream)
    assert expected < TOTAL
    assert (count.decided, count.stopped, count.taken) == (True, True, expected)
    assert count.tally.scores[0].tolist() == torch.bincount(stream[:expected].argmax(1), minlength=CLASSES).tolist()
    assert count.tally.num_samples.tolist() == [expected]


@pytest.mark.parametrize("vote", VOTES)
def test_without_a_rule_all_draws_count(stream, vote):
    count = Count(VOTES[vote], TOTAL)
    for part in stream.split(7):
        assert not count.decided
        count.add(part)
    assert (count.decided, count.stopped, count.taken) == (True, False, TOTAL)
    torch.testing.assert_close(count.tally.scores[0], VOTES[vote](stream).sum(0))


def test_draws_after_the_decision_do_not_count(stream):
    count = Count(VOTES["prediction"], TOTAL, Confident(0.2))
    count.add(stream)
    before = count.tally.scores.clone()
    assert count.stopped
    count.add(torch.full((5, CLASSES), 9.0))
    count.settle()
    assert torch.equal(count.tally.scores, before)


def test_draws_wait_until_the_rule_is_asked_or_they_are_settled(stream):
    count = Count(VOTES["prediction"], TOTAL, Exact())
    count.add(stream[:5])
    assert count.taken == 5
    assert int(count.tally.num_samples) < 5
    count.settle()
    assert int(count.tally.num_samples) == 5
    assert count.required == count.allowed >= 1


def test_numbers_of_draws_to_make():
    agreeing = torch.tensor([[1.0, 0.0, 0.0]]).expand(TOTAL, CLASSES)
    count = Count(VOTES["prediction"], TOTAL, Exact())
    assert (count.required, count.allowed) == (1, 1)
    count.add(agreeing[:1])
    assert count.required == count.allowed == 19  # 20 votes of 40 are enough for the lowest class
    count.add(agreeing[:12])
    assert (count.required, count.allowed) == (7, 7)
    everything = Count(VOTES["prediction"], TOTAL)
    assert everything.required == everything.allowed == TOTAL


def test_refuses_logits_that_are_not_finite(stream):
    with pytest.raises(ArgumentError, match="model: expected finite logits"):
        Count(VOTES["prediction"], 1).add(stream[:1] * torch.nan)


def test_refuses_scores_of_another_shape(stream):
    with pytest.raises(ArgumentError, match=r"vote: expected scores of shape \(1, 3\), got shape \(1, 1\)"):
        Count(lambda logits: logits[:, :1], 1).add(stream[:1])
