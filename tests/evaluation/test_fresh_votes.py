"""Fresh votes against binomial probabilities that are known, and estimators against enumeration."""

import itertools
import math

import pytest
import torch
from scipy.stats import binom

import known
from smoothed import Smoothed, Uniform
from smoothed.evaluation.fresh_votes import VoteCounts, probability_all_correct, take_votes


def votes_on(x, images, count, *, num_samples=1, vote="prediction", alpha=None, seed=0):
    smoothed = Smoothed(known.Threshold(), Uniform(known.SIGMA), vote=vote, num_samples=num_samples)
    labels = torch.zeros(images, dtype=torch.int64)
    return take_votes(smoothed, torch.full((images, 1, 1, 1), x), labels, count, seed=seed, alpha=alpha)


def near(measured, probability, trials):
    return abs(measured - probability) < 4 * math.sqrt(probability * (1 - probability) / trials) + 1e-9


@pytest.mark.parametrize("x", [0.0, 0.3, 0.8, 1.0])
def test_a_vote_of_one_draw_is_right_as_often_as_a_draw(x):
    votes = votes_on(x, 200, 10)
    assert near(float(votes.shares.mean()), x, 2000)
    assert torch.equal(votes.right, votes.right_draws)
    assert votes.count.tolist() == votes.draws.tolist() == [10] * 200


def test_a_vote_of_more_draws_is_a_majority_and_ties_go_to_the_lowest_class():
    votes = votes_on(0.6, 300, 4, num_samples=4)
    assert near(float(votes.shares.mean()), binom.sf(1, 4, 0.6), 1200)  # two of four are a tie, which class 0 wins
    assert near(float((votes.tied / votes.count).mean()), binom.pmf(2, 4, 0.6), 1200)
    assert near(float((votes.right_draws / votes.draws).mean()), 0.6, 4800)
    assert votes.draws.tolist() == [16] * 300
    assert not votes.abstained.any()


def test_the_soft_vote_counts_single_draws_by_their_class():
    votes = votes_on(0.7, 300, 4, num_samples=3, vote="soft")
    assert near(float((votes.right_draws / votes.draws).mean()), 0.7, 3600)
    assert float(votes.shares.mean()) > 0.75  # the soft vote is no majority, but better than a draw


def test_votes_that_abstain_are_not_right():
    votes = votes_on(0.9, 300, 2, num_samples=10, alpha=0.05)
    sure = binom.sf(8, 10, 0.9)  # 9 of 10 have a p-value of 0.02, 8 of 10 one of 0.11
    assert near(float(votes.shares.mean()), sure, 600)
    assert near(float((votes.abstained / votes.count).mean()), 1 - sure - binom.cdf(1, 10, 0.9), 600)


def test_votes_are_independent_of_each_other_and_follow_the_seed():
    first, again, other = (votes_on(0.5, 500, 2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.right, again.right)
    assert not torch.equal(first.right, other.right)
    assert near(float((first.right == 1).double().mean()), 0.5, 500)  # two votes that differ
    assert torch.equal(first.right[:100], votes_on(0.5, 100, 2, seed=0).right)  # whatever comes after


def test_resubmission_is_the_share_of_choices_that_are_right_every_time():
    for count, right, times in [(5, 3, 2), (5, 5, 3), (6, 2, 3), (4, 0, 1), (4, 4, 4), (7, 6, 7)]:
        won = [1] * right + [0] * (count - right)
        expected = [all(choice) for choice in itertools.combinations(won, times)]
        estimate = probability_all_correct(torch.tensor([right]), torch.tensor([count]), times)
        assert float(estimate) == pytest.approx(sum(expected) / len(expected))


@pytest.mark.parametrize("times", [1, 2, 5])
def test_resubmission_is_unbiased_for_a_power_of_the_probability(times):
    p, count = 0.8, 10
    right = torch.arange(count + 1)
    weights = torch.tensor(binom.pmf(right.numpy(), count, p))
    estimate = probability_all_correct(right, torch.full_like(right, count), times)
    assert float((weights * estimate).sum()) == pytest.approx(p**times)


def votes(right, count, right_draws, draws):
    zeros = [0] * len(right)
    return VoteCounts(*(torch.tensor(values) for values in (count, right, draws, right_draws, zeros, zeros)))


def test_the_worse_example_has_fewer_right_votes_and_then_fewer_right_draws():
    old = votes([5, 5, 10, 10], [10, 10, 10, 10], [60, 60, 90, 90], [100, 100, 100, 100])
    new = votes([2, 3, 5, 5], [5, 5, 5, 5], [30, 1, 44, 45], [50, 50, 50, 50])
    assert new.worse_than(old).tolist() == [True, False, True, False]


def test_rows_are_taken_replaced_and_joined():
    all_, one = votes([1, 2, 3], [4, 4, 4], [1, 2, 3], [4, 4, 4]), votes([9], [10], [9], [10])
    changed = all_.replaced(torch.tensor([1]), one)
    assert (changed.right.tolist(), changed.count.tolist()) == ([1, 9, 3], [4, 10, 4])
    assert changed.at(torch.tensor([2, 0])).right.tolist() == [3, 1]
    assert VoteCounts.concatenated([one, all_]).right.tolist() == [9, 1, 2, 3]
    assert one.times(3).count.tolist() == [30]
    assert torch.equal(VoteCounts.from_tensors(all_.to_tensors() | {"other": torch.zeros(1)}).right, all_.right)
