"""The size of shared passes, and how the draws of a vote with a seed are divided into turns."""

import pytest
import torch

from smoothed import Fast, Gaussian, Smoothed
from smoothed.serve.counting import Count
from smoothed.serve.secret import SecretSeed
from smoothed.serve.turns import PassSize, SharedPasses, SoloVote, VoteJob, passes_of_draws
from smoothed.smoothing.sampling import Sampler
from smoothed.smoothing.votes import VOTES

SIGMA = 0.5


def test_passes_shrink_where_they_take_too_long_and_grow_again():
    size = PassSize(0.1)
    size.took(100, 0.4)
    assert size.rows == 25
    size.took(25, 0.08)
    assert size.rows == 25
    for _ in range(20):
        size.took(25, 0.01)
    assert size.rows == PassSize.LARGEST
    size.took(1, 5.0)
    assert size.rows == 1


def test_a_slow_network_gets_small_passes(network, images):
    rows = []
    size = PassSize()
    size.rows = 6
    shared = SharedPasses(
        Smoothed(network, Gaussian(SIGMA)), SecretSeed(), images[0], size, lambda _, count: rows.append(count)
    )
    for image in images[:2]:
        shared.join(VoteJob(image, Count(VOTES["prediction"], 12)))
    shared.step()
    assert rows == [6]


@pytest.fixture
def divided(monkeypatch):
    """The sizes of the passes that `Sampler.logits` makes of a number of draws, as it makes them."""
    sizes = []
    rows, stacked = Sampler.logits_of_rows, type(Smoothed(lambda x: x.mean((2, 3))).noisy_classifier).stacked

    def logits_of_rows(sampler, inputs, index, draws, numbers):
        parts = torch.arange(len(index)).tensor_split(-(-len(index) // sampler.chunk_size))
        sizes.extend(("rows", len(part)) for part in parts)
        return rows(sampler, inputs, index, draws, numbers)

    def stack(classifier, inputs, keys):
        sizes.append(("stacked", len(keys)))
        return stacked(classifier, inputs, keys)

    monkeypatch.setattr(Sampler, "logits_of_rows", logits_of_rows)
    monkeypatch.setattr("smoothed.smoothing.noisy_classifier.NoisyClassifier.stacked", stack)
    return sizes


@pytest.mark.parametrize("noise_kind", ["input", "weights"], indirect=True)
@pytest.mark.parametrize("draws", [1, 2, 7, 8, 9, 16, 17, 25, 33, 40])
def test_turns_are_the_passes_of_the_sampler(noisy_network, noise_kind, images, divided, monkeypatch, draws):
    fast = Fast(noisy_network)
    monkeypatch.setattr(fast, "_stacking_pays", lambda *_: True)
    sampler = Smoothed(fast, Gaussian(SIGMA), chunk_size=8).sampler(images[:1], draws, seed=0)
    with torch.no_grad():
        whole = sampler.logits(images[:1], torch.arange(1), 0, draws)
        expected = list(divided)
        divided.clear()
        sizes = passes_of_draws(sampler, images[:1], draws)
        parts = [sampler.logits(images[:1], torch.arange(1), sum(sizes[:n]), size) for n, size in enumerate(sizes)]
    assert divided == expected
    assert torch.equal(torch.cat(parts), whole)
    assert sum(sizes) == draws
    assert max(sizes) <= 9 or noise_kind == "input"


def test_a_turn_of_a_long_vote_with_a_seed_is_one_pass(network, images):
    rows = []
    smoothed = Smoothed(network, Gaussian(SIGMA), chunk_size=8, seed=3)
    job = VoteJob(images[0], Count(VOTES["prediction"], 100))
    solo = SoloVote(smoothed, job, lambda _, count: rows.append(count))
    with torch.no_grad():
        turns = 1
        while solo.step():
            turns += 1
    assert sum(rows) == 100
    assert max(rows) <= 8
    assert turns == len(rows)
    tally = Smoothed(network, Gaussian(SIGMA), chunk_size=8, seed=3, num_samples=100).tally(images[:1])
    assert torch.equal(job.future.result().tally.scores, tally["prediction"][100].scores)
