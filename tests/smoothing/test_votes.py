"""Votes against a naive, literal reading of their equations."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smoothed import votes
from smoothed.errors import ArgumentError

# Few distinct values, so that ties are common.
logit_rows = st.integers(2, 6).flatmap(
    lambda k: st.lists(st.lists(st.integers(-2, 2), min_size=k, max_size=k), min_size=1, max_size=5)
)


def rank(row, y):
    """k(p_iy): 1 for the most probable class; equal classes rank by index."""
    return 1 + sum(other > row[y] or (other == row[y] and j < y) for j, other in enumerate(row))


def naive(rows, score):
    return torch.tensor([[score(row, y) for y in range(len(row))] for row in rows], dtype=torch.float32)


@given(logit_rows)
def test_prediction_is_equation_9(rows):
    expected = naive(rows, lambda row, y: float(y == row.index(max(row))))
    assert torch.equal(votes.prediction(torch.tensor(rows, dtype=torch.float32)), expected)


@given(logit_rows)
def test_weighted_is_equation_11(rows):
    expected = naive(rows, lambda row, y: 2.0 ** (1 - rank(row, y)))
    assert torch.equal(votes.weighted(torch.tensor(rows, dtype=torch.float32)), expected)


@given(logit_rows, st.floats(0, 1, width=32))
def test_top_two_is_equation_12(rows, second):
    expected = naive(rows, lambda row, y: {1: 1.0, 2: second}.get(rank(row, y), 0.0))
    assert torch.equal(votes.top_two(second)(torch.tensor(rows, dtype=torch.float32)), expected)


@given(logit_rows)
def test_soft_is_equation_13(rows):
    expected = naive(rows, lambda row, y: math.exp(row[y]) / sum(math.exp(value) for value in row))
    assert torch.allclose(votes.soft(torch.tensor(rows, dtype=torch.float32)), expected, atol=1e-6)


@given(logit_rows, st.lists(st.floats(0, 2, width=32), min_size=1, max_size=8))
def test_by_rank_takes_any_weights(rows, weights):
    expected = naive(rows, lambda row, y: weights[rank(row, y) - 1] if rank(row, y) <= len(weights) else 0.0)
    assert torch.equal(votes.by_rank(weights)(torch.tensor(rows, dtype=torch.float32)), expected)


def test_soft_is_differentiable_and_half_precision_is_counted_in_float32():
    logits = torch.zeros(2, 3, dtype=torch.bfloat16, requires_grad=True)
    votes.soft(logits)[:, 0].sum().backward()
    assert logits.grad is not None
    assert all(vote(logits).dtype == torch.float32 for vote in votes.VOTES.values())


def test_resolve():
    assert votes.resolve("weighted") is votes.weighted
    assert votes.resolve(votes.soft) is votes.soft
    with pytest.raises(ArgumentError, match="vote: expected one of prediction, weighted, soft, got 'hard'"):
        votes.resolve("hard")


BOUNDED = {**votes.VOTES, "top two": votes.top_two(0.25), "by rank": votes.by_rank([2, 1, 1, 0.5, 0.5, 0])}


@pytest.mark.parametrize("vote", BOUNDED)
@given(st.data())
def test_no_draw_moves_two_classes_by_more_than_the_spread(vote, data):
    k = data.draw(st.integers(2, 7))
    logits = torch.tensor([data.draw(st.lists(st.floats(-60, 60, width=32), min_size=k, max_size=k))])
    scores, bound = BOUNDED[vote](logits)[0], votes.vote_bound(BOUNDED[vote], k)
    assert votes.spread(BOUNDED[vote], k) == bound.spread
    assert scores.max() - scores.min() <= bound.spread
    assert scores.abs().max() <= bound.largest
    assert bound.is_one_hot == (vote == "prediction")
    assert bound.sums_to_one == (vote in {"prediction", "soft"})


@pytest.mark.parametrize("vote", BOUNDED)
@pytest.mark.parametrize("k", [2, 3, 6])
def test_the_spread_is_reached(vote, k):
    scores = BOUNDED[vote](torch.linspace(0, 600, k).unsqueeze(0))[0]
    assert float(scores.max() - scores.min()) == pytest.approx(votes.spread(BOUNDED[vote], k), abs=1e-6)


def test_spreads_by_hand():
    assert votes.spread(votes.weighted, 10) == 1 - 2**-9
    assert votes.spread(votes.by_rank([3, 1, 0.5]), 2) == 2
    assert votes.spread(votes.by_rank([3, 1, 0.5]), 4) == 3
    assert votes.spread(lambda logits: logits, 3) == math.inf
    assert votes.vote_bound(votes.by_rank([1]), 3).is_one_hot
    assert not votes.vote_bound(votes.by_rank([0.5, 0.5]), 3).is_one_hot


def test_a_vote_of_your_own_with_its_bound():
    own = votes.with_bound(lambda logits: logits.sigmoid() - 0.25, spread=1, largest=0.75)
    assert torch.equal(own(torch.zeros(2, 3)), torch.full((2, 3), 0.25))
    assert votes.vote_bound(own, 3) == votes.VoteBound(1.0, 0.75)
    assert votes.vote_bound(votes.with_bound(votes.soft, spread=1), 3).largest == 1
    for options in ({"spread": -1}, {"spread": math.inf}, {"spread": 1, "largest": -1}):
        with pytest.raises(ArgumentError, match="expected a finite number of at least 0"):
            votes.with_bound(votes.soft, **options)


@pytest.mark.parametrize("weights", [[], [1, -1], [float("nan")], [float("inf")]])
def test_bad_weights(weights):
    with pytest.raises(ArgumentError, match="weights: expected"):
        votes.by_rank(weights)
