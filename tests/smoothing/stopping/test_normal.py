"""The chance that the leader is overtaken, against draws from the prior and the posterior, and a literal formula."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from smoothed.smoothing.stopping.normal import chance_of_change, margins
from smoothed.smoothing.stopping.rule import VoteState
from smoothed.smoothing.votes import VoteBound

ONE = VoteBound(1.0, 1.0)


def seen_of(scores):
    """What a watch sees of scores (N, n, K)."""
    return VoteState(scores.sum(1), scores.square().sum(1), scores.shape[1])


def two_classes(leads):
    """Scores (N, n, 2) whose differences are `leads`, (N, n): for two classes that mirror each other all is exact."""
    return torch.stack([0.5 + leads / 2, 0.5 - leads / 2], 2)


@pytest.mark.parametrize("weight", [1.0, 0.25, 4.0])
def test_it_is_the_posterior_predictive(weight):
    """Of 400,000 posteriors, drawn as the book says, the share in which the rest of the draws turns the lead."""
    random, total, n = np.random.default_rng(0), 40, 8
    leads = torch.tensor([[0.3, -0.2, 0.5, 0.1, 0.4, -0.3, 0.2, 0.35]], dtype=torch.float64)
    values = leads[0].numpy()
    # Prior: mean 0 worth w draws, and w draws whose squares are 1.
    degrees, worth, mean = weight + n, weight + n, values.sum() / (weight + n)
    squares = weight * 1 + values.var() * n + weight * n / worth * values.mean() ** 2
    variance = squares / random.chisquare(degrees, 400_000)
    centre = random.normal(mean, np.sqrt(variance / worth))
    rest = random.normal((total - n) * centre, np.sqrt((total - n) * variance))
    share = float((values.sum() + rest <= 0).mean())
    made = margins(seen_of(two_classes(leads)), total, ONE, weight)
    assert made[0, 0] == math.inf
    assert float(chance_of_change(made, n + weight)) == pytest.approx(share, rel=0.03)


def test_over_the_prior_no_more_than_delta_is_overtaken_though_every_draw_is_looked_at(generator):
    """Means and deviations from the prior: what stops at a chance of delta is wrong in at most that share."""
    images, total, delta = 20_000, 64, 0.02
    variance = 1 / torch.distributions.Chi2(torch.ones(images, dtype=torch.float64)).sample()
    centre = variance.sqrt() * torch.randn(images, dtype=torch.float64, generator=generator)
    normals = torch.randn(images, total, dtype=torch.float64, generator=generator)
    leads = centre.unsqueeze(1) + variance.sqrt().unsqueeze(1) * normals
    scores, going = two_classes(leads), torch.arange(images)
    winner, wrong, stopped = leads.sum(1) <= 0, 0, 0
    for drawn in range(1, total):
        state = seen_of(scores[going, :drawn])
        done = chance_of_change(margins(state, total, ONE, 1.0), drawn + 1.0) <= delta
        leads_now = state.scores[done].argmax(1)
        wrong += int((leads_now != winner[going[done]].long()).sum())
        stopped += int(done.sum())
        going = going[~done]
    assert stopped > 0.8 * images
    assert wrong <= delta * images + 3 * (delta * images) ** 0.5
    assert wrong > delta * images / 10


def test_each_rival_has_the_margin_of_a_pair_and_never_a_larger_one(generator):
    """Against the formula on the differences themselves, which nobody keeps."""
    scores = torch.rand(50, 12, 6, generator=generator, dtype=torch.float64)
    total, weight, n = 100, 1.0, 12
    made = margins(seen_of(scores), total, ONE, weight)
    equal = 0
    for image, found in zip(scores, made, strict=True):
        first = int(image.sum(0).argmax())
        for rival in set(range(6)) - {first}:
            lead = (image[:, first] - image[:, rival]).numpy()
            sigma = np.sqrt((lead.var() * n + weight + lead.sum() ** 2 * weight / n / (n + weight)) / (n + weight))
            exact = lead.sum() * np.sqrt((total + weight) / (n + weight) / (total - n)) / sigma
            assert 0.3 * exact < float(found[rival]) <= exact + 1e-12
            equal += float(found[rival]) > 0.99 * exact
    assert equal < 250
    opposed = torch.stack([scores[..., 0], 1 - scores[..., 0]], 2)
    lead = (2 * scores[..., 0] - 1).abs()
    assert torch.isfinite(margins(seen_of(opposed), total, ONE, weight)).sum() == len(lead)


def test_units_are_those_of_the_spread(generator):
    scores = torch.rand(20, 9, 4, generator=generator)
    one, ten = (margins(seen_of(factor * scores), 30, VoteBound(factor, factor), 1.0) for factor in (1.0, 10.0))
    assert torch.allclose(one, ten, rtol=1e-4)


def test_rivals_beyond_the_second_count_as_much_as_it():
    found = torch.tensor([[math.inf, 3.0, 4.0, 9.0, 5.0], [2.0, math.inf, 8.0, 8.0, 8.0]], dtype=torch.float64)
    chances = chance_of_change(found, 11.0)
    law = student(11.0)
    assert chances[0] == pytest.approx(law.sf(3) + 3 * law.sf(4))
    assert chances[1] == pytest.approx(law.sf(2) + 3 * law.sf(8))
    assert chance_of_change(found[:, [0, 1]], 11.0)[0] == pytest.approx(law.sf(3))


def test_what_rounding_hides_counts_as_variation(generator):
    """Scores far from 0, of which float32 keeps too few digits: no larger a margin than near 0."""
    scores = torch.randint(2, (200, 30, 2), generator=generator).float()
    near, far = (margins(seen_of(scores + offset), 400, ONE, 1.0)[:, 1] for offset in (0.0, 1000.0))
    assert (far <= near + 1e-6).all()


def test_a_tie_is_no_margin():
    level = torch.full((1, 5, 3), 1 / 3)
    found = margins(seen_of(level), 9, ONE, 1.0)
    assert found[0].tolist() == pytest.approx([math.inf, 0, 0], abs=1e-6)
    assert float(chance_of_change(found, 6.0)) == pytest.approx(1.0)
