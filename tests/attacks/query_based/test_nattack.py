"""NAttack's estimator against the gradient of a known quadratic, and its attack against a linear optimum."""

import inspect
import math

import pytest
import torch
from torch.testing import assert_close

from refusing import check_refusals
from smoothed.attacks import margin
from smoothed.attacks.query_based.nattack import nattack, search_gradient, z_scored
from smoothed.rng.seeds import seeded

BATCHES, SAMPLES, SIGMA = 400, 500, 0.3


class TestSearchGradient:
    @pytest.mark.parametrize("random", [False, True], ids=["fixed", "random"])
    def test_is_unbiased_on_a_quadratic(self, random):
        """f(z) = a + g z + z A z / 2: the smoothed gradient is g + A m. Five standard errors of 400 estimates.

        A bias of 4 % of the gradient's norm would fail; each estimate has its own standard error, taken from the 400.
        """
        generator = seeded(0)
        slope = torch.randn(12, generator=generator, dtype=torch.float64)
        root = torch.randn(12, 12, generator=generator, dtype=torch.float64)
        curvature, mean = (root + root.T) / 2, torch.randn(12, generator=generator, dtype=torch.float64)
        noise = torch.randn(BATCHES, SAMPLES, 12, generator=generator, dtype=torch.float64)
        z = mean + SIGMA * noise
        values = 0.4 + z @ slope + ((z @ curvature) * z).sum(2) / 2
        if random:
            values = values + torch.randn(values.shape, generator=generator, dtype=torch.float64)
        estimates = search_gradient(values, noise.view(BATCHES, SAMPLES, 3, 2, 2), SIGMA).flatten(1)
        exact = slope + curvature @ mean
        error = estimates.std(0) / BATCHES**0.5
        assert ((estimates.mean(0) - exact).abs() < 5 * error).all()
        assert 5 * error.norm() < 0.5 * exact.norm()

    def test_is_the_average_of_value_times_noise(self, generator):
        values, noise = torch.randn(2, 5, generator=generator), torch.randn(2, 5, 3, 2, 2, generator=generator)
        expected = torch.zeros(2, 3, 2, 2)
        for image in range(2):
            for sample in range(5):
                expected[image] += values[image, sample] * noise[image, sample] / (5 * 0.2)
        assert_close(search_gradient(values, noise, 0.2), expected)

    def test_z_scores(self):
        scored = z_scored(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
        assert_close(scored, torch.tensor([[-(1.5**0.5), 0.0, 1.5**0.5], [0.0, 0.0, 0.0]]))


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5)])
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_comes_close_to_a_linear_optimum(norm, eps, targeted, generator):
    """Two classes, away from 0 and 1: 85 % of the best gain after 3,000 queries, and never more than it."""
    weight = torch.randn(48, generator=generator)
    inputs = 0.3 + 0.4 * torch.rand(6, 3, 4, 4, generator=generator)

    def model(images):
        return torch.stack([torch.zeros(len(images)), images.flatten(1) @ weight], 1)

    labels = torch.full((6,), int(targeted))
    options = {"eps": eps, "norm": norm, "targeted": targeted, "max_queries": 3000, "confidence": math.inf}
    attacked = nattack(model, inputs, labels, generator=generator, **options)
    sign = -1 if targeted else 1
    gain = sign * (margin(model(attacked), labels) - margin(model(inputs), labels))
    best = eps * (weight.abs().sum() if norm == "linf" else weight.norm())
    assert (gain <= best + 1e-4).all()
    assert (gain > 0.85 * best).all()


def test_pixels_at_the_ends_move(generator):
    """A mean at 0 or 1 would have no slope in tanh's space."""
    inputs = (torch.rand(4, 3, 4, 4, generator=generator) > 0.5).float()
    inward = torch.where(inputs == 0, 1.0, -1.0)

    def model(images):
        value = (images * inward[:1]).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(value), value], 1)

    options = {"eps": 0.1, "max_queries": 2000, "confidence": math.inf}
    attacked = nattack(model, inputs[:1], torch.tensor([0]), generator=generator, **options)
    assert ((attacked - inputs[:1]) * inward[:1]).mean() > 0.05


def test_errors(network, images, labels):
    def call(**change):
        inspect.unwrap(nattack)(network, images, labels, **{"eps": 0.1, **change})

    check_refusals(
        call,
        [
            ({"population": 1}, "population: expected at least 2, since the losses of the samples are compared, got 1"),
            ({"population": 2.5}, "population: expected an integer of at least 1, got 2.5"),
            ({"sigma": 0.0}, "sigma: expected a standard deviation above 0, got 0"),
            ({"learning_rate": -1.0}, "learning_rate: expected a finite number of at least 0, got -1"),
        ],
    )
