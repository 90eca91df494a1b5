"""Queries and random points find what a hidden gradient does not, and nothing new where the gradient is honest."""

from itertools import pairwise

import pytest
import torch

from flawed import EPS, Backward
from smoothed.evaluation.gradient_masking.black_box import (
    black_box_against_white_box,
    random_search,
    random_search_against_gradients,
)
from smoothed.rng.seeds import seeded

CHECKS = [black_box_against_white_box, random_search_against_gradients]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("sigma", [0.0, 0.03])
def test_a_gradient_that_is_zero(check, sigma, defence, few):
    hidden = Backward(few, lambda gradient, _: torch.zeros_like(gradient))
    assert check(defence(hidden, sigma)).verdict == "suspicious"
    assert check(defence(few, sigma)).verdict == "pass"


def test_what_counts_as_found(defence, few):
    """With the gradient the wrong way round, PGD loses no image: found are those that random search breaks."""
    flipped = defence(Backward(few, lambda gradient, _: -gradient))
    left, searched, found = random_search_against_gradients(flipped).figures
    assert left.value == 1.0
    assert found.value == pytest.approx(1 - searched.value, abs=1e-6)


class TestRandomSearch:
    def test_stays_in_the_ball_and_the_range(self, few, images):
        inputs = images.mul(1.4).sub(0.2).clamp(0, 1)
        found = random_search(few, inputs, torch.zeros(16, dtype=torch.int64), eps=EPS, tries=5, generator=seeded(0))
        assert (found - inputs).abs().max() <= EPS + 1e-6
        assert found.min() >= 0
        assert found.max() <= 1

    def test_more_tries_raise_the_margin_towards_the_best_corner(self, few, images):
        """Each search begins with the points of the shorter one; 400 tries miss one in 500 of the 64 corners."""
        labels = few(images).argmax(1)

        def gap(inputs):
            logits = few(inputs).clone()
            own = logits.gather(1, labels[:, None])
            return (logits.scatter(1, labels[:, None], -torch.inf).amax(1, keepdim=True) - own)[:, 0].detach()

        searches = [
            gap(random_search(few, images, labels, eps=EPS, tries=tries, generator=seeded(0))) for tries in (1, 8, 800)
        ]
        assert all((more >= fewer).all() for fewer, more in pairwise(searches))
        worst = torch.stack(
            [
                gap((images + EPS * (few.weight[other] - few.weight[labels]).sign().view_as(images)).clamp(0, 1))
                for other in range(3)
            ]
        ).amax(0)
        assert (searches[-1] <= worst + 1e-5).all()
        assert (searches[-1] > worst - 0.05).float().mean() > 0.9

    def test_generator_decides(self, few, images):
        labels = torch.zeros(16, dtype=torch.int64)
        first, again, other = (
            random_search(few, images, labels, eps=EPS, tries=3, generator=seeded(seed)) for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
