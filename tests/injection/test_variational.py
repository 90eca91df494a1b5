"""Variational dropout: its law by moments, its divergence by numerical integration, its gradients by differences."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn
from torch.testing import assert_close

from smoothed.errors import ArgumentError
from smoothed.injection import VariationalDropout, frozen, inject, injected_noise, noise_layers, noiseless, reinject
from smoothed.injection.variational import SMALLEST_LOG_ALPHA, divergence_from_prior

DRAWS = 10_000
GRANULARITIES = pytest.mark.parametrize(
    ("granularity", "shape"), [("layer", ()), ("channel", (2, 1, 1, 1)), ("element", (2, 2, 1, 2))]
)


def numbers(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noisy(granularity, shape):
    """A convolution of eight weights with alphas of their own, at most 1."""
    conv = nn.Conv2d(2, 2, (1, 2)).double()
    inject(conv, weights=VariationalDropout(granularity))
    layer = conv.parametrizations.weight[0]
    assert layer.log_alpha.shape == shape
    layer.log_alpha.data.copy_(-numbers(*shape).abs())
    return conv, layer, conv.parametrizations.weight.original


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.slow
@GRANULARITIES
def test_law(granularity, shape):
    """Mean w, covariance diag(alpha w^2), normal; the tolerances are those of the test of PNI."""
    conv, layer, weight = noisy(granularity, shape)
    with torch.no_grad():
        noise = torch.stack([conv.weight for _ in range(DRAWS)]).sub(weight).flatten(1)
    expected = (layer.log_alpha.detach().exp().sqrt() * weight.detach().abs()).expand(2, 2, 1, 2).flatten()
    assert (noise.mean(0) / expected).abs().max() < 5 / DRAWS**0.5
    assert_close(noise.std(0), expected, rtol=0.035, atol=0)
    assert (torch.corrcoef(noise.T) - torch.eye(8)).abs().max() < 5 / DRAWS**0.5
    assert stats.kstest((noise / expected).flatten().numpy(), "norm").pvalue > 1e-3


@GRANULARITIES
def test_gradients_by_finite_differences(granularity, shape):
    """Of log(alpha), and of the weight, which scales its own noise."""
    conv, layer, weight = noisy(granularity, shape)
    upstream, step = numbers(2, 2, 1, 2, seed=5), 1e-5
    with frozen(conv):
        gradients = torch.autograd.grad((conv.weight * upstream).sum(), [layer.log_alpha, weight])
        for parameter, gradient in zip((layer.log_alpha, weight), gradients, strict=True):
            for index in range(parameter.numel()):
                ends = []
                for sign in (1, -1):
                    parameter.data.view(-1)[index] += sign * step
                    ends.append((conv.weight * upstream).sum().item())
                    parameter.data.view(-1)[index] -= sign * step
                assert gradient.flatten()[index].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def exact_divergence(alpha):
    """KL(q || p) of one weight under the log-uniform prior, up to a constant.

    It is E log|e| - log(alpha) / 2 with e ~ N(1, alpha); the integral is split at 0, where the logarithm has its pole.
    """
    deviation = math.sqrt(alpha)

    def integrand(value):
        return np.log(abs(value)) * stats.norm.pdf(value, 1, deviation)

    low, high = min(-1e-3, 1 - 12 * deviation), 1 + 12 * deviation
    parts = [integrate.quad(integrand, *ends, limit=400)[0] for ends in ((low, 0), (0, 1), (1, high))]
    return sum(parts) - math.log(alpha) / 2


def test_the_divergence_is_that_of_the_posterior():
    """Up to one constant, within 0.01 nats for alpha from 0.05 on and 0.04 nats below; it spans 3.5 nats."""
    alphas = [1e-3, 3e-3, 0.01, 0.03, 0.0625, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    found = divergence_from_prior(torch.tensor(alphas, dtype=torch.float64).log())
    gap = found - torch.tensor([exact_divergence(alpha) for alpha in alphas], dtype=torch.float64)
    assert (gap[4:].max() - gap[4:].min()).item() < 0.01
    assert (gap.max() - gap.min()).item() < 0.04
    assert (found.max() - found.min()).item() > 3


def test_the_divergence_is_the_published_polynomial():
    """Value and gradient in float64, term by term."""
    log_alpha = torch.linspace(-8, 0, 17, dtype=torch.float64).requires_grad_()
    found = divergence_from_prior(log_alpha)
    (gradient,) = torch.autograd.grad(found.sum(), log_alpha)
    for value, slope, at in zip(found.tolist(), gradient.tolist(), log_alpha.tolist(), strict=True):
        a = math.exp(at)
        assert value == pytest.approx(-(0.5 * at + 1.16145124 * a - 1.50204118 * a**2 + 0.58629921 * a**3), rel=1e-12)
        expected = -(0.5 + 1.16145124 * a - 2 * 1.50204118 * a**2 + 3 * 0.58629921 * a**3)
        assert slope == pytest.approx(expected, rel=1e-10)


@GRANULARITIES
def test_the_penalty_counts_each_weight(granularity, shape):
    _, layer, _ = noisy(granularity, shape)
    expected = divergence_from_prior(layer.log_alpha.expand(2, 2, 1, 2)).sum()
    assert_close(layer.penalty(), expected)


def test_projection_keeps_alpha_at_most_one():
    _, layer, _ = noisy("element", (2, 2, 1, 2))
    inside = layer.log_alpha.detach().clone()
    layer.project_()
    assert torch.equal(layer.log_alpha, inside)
    layer.log_alpha.data[0] = 3.0
    layer.log_alpha.data[1] = -1e4
    layer.project_()
    assert (layer.log_alpha[0] == 0).all()
    assert (layer.log_alpha[1] == SMALLEST_LOG_ALPHA).all()


def test_strength_zero_is_no_noise_and_has_finite_gradients():
    conv, twin = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
    twin.load_state_dict(conv.state_dict())
    inject(conv, weights=VariationalDropout(), strength=0.0)
    assert torch.equal(conv.weight, twin.weight)
    (conv.weight.sum() + noise_layers(conv)[0].penalty()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in conv.parameters() if parameter.grad is not None)
    noise_layers(conv)[0].scale_(0.0)
    assert torch.equal(conv.weight, twin.weight)


def test_scaled_starts_weaker():
    assert VariationalDropout("channel", 0.5).scaled(0.5) == VariationalDropout("channel", 0.125)


def test_it_is_described_by_json_and_switched_off_as_any_noise(images):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 4))
    clean, bare = network(images), copy.deepcopy(network)
    inject(network, weights=VariationalDropout("channel", 0.3))
    assert not torch.equal(network(images), network(images))
    with noiseless(network):
        assert torch.equal(network(images), clean)
    reinject(bare, injected_noise(network).to_json())
    bare.load_state_dict(network.state_dict())
    with frozen(network, 4), frozen(bare, 4):
        assert torch.equal(bare(images), network(images))


def test_errors():
    with pytest.raises(ArgumentError, match="granularity: expected one of layer, channel, element, got 'row'"):
        VariationalDropout("row")
    with pytest.raises(ArgumentError, match="initial_alpha: expected a finite number of at least 0, got -1"):
        VariationalDropout(initial_alpha=-1)
    with pytest.raises(ArgumentError, match="layers: expected convolutions or linear layers with VariationalDropout"):
        VariationalDropout().for_activation(2, 2)
