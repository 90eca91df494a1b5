"""The Gaussian posterior of Adv-BNN: law by moments, divergence against torch's, gradients by differences."""

import copy
import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from smoothed.errors import ArgumentError
from smoothed.injection import (
    GaussianPosterior,
    frozen,
    inject,
    injected_noise,
    noise_layers,
    noiseless,
    penalties,
    reinject,
)
from smoothed.injection.posterior import SMALLEST_LOG_SIGMA, divergence_from_prior

DRAWS = 10_000
PRIOR = 0.3
GRANULARITIES = pytest.mark.parametrize(
    ("granularity", "shape"), [("layer", ()), ("channel", (2, 1, 1, 1)), ("element", (2, 2, 1, 2))]
)


def numbers(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noisy(granularity, shape):
    """A convolution of eight weights with deviations of their own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv = nn.Conv2d(2, 2, (1, 2)).double()
    inject(conv, weights=GaussianPosterior(granularity, prior_sigma=PRIOR))
    layer = conv.parametrizations.weight[0]
    assert layer.log_sigma.shape == shape
    layer.log_sigma.data.copy_(numbers(*shape) - 1)
    return conv, layer, conv.parametrizations.weight.original


@pytest.mark.slow
@GRANULARITIES
def test_law(granularity, shape):
    """Mean w, covariance diag(sigma^2), normal; the tolerances are those of the test of PNI."""
    conv, layer, weight = noisy(granularity, shape)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        noise = torch.stack([conv.weight for _ in range(DRAWS)]).sub(weight).flatten(1)
    expected = layer.log_sigma.detach().exp().expand(2, 2, 1, 2).flatten()
    assert (noise.mean(0) / expected).abs().max() < 5 / DRAWS**0.5
    assert_close(noise.std(0), expected, rtol=0.035, atol=0)
    assert (torch.corrcoef(noise.T) - torch.eye(8)).abs().max() < 5 / DRAWS**0.5
    assert stats.kstest((noise / expected).flatten().numpy(), "norm").pvalue > 1e-3


@GRANULARITIES
def test_gradients_by_finite_differences(granularity, shape):
    """Of log(sigma) and of the weight, through a draw and its divergence."""
    conv, layer, weight = noisy(granularity, shape)
    upstream, step = numbers(2, 2, 1, 2, seed=5), 1e-5

    def value():
        return (conv.weight * upstream).sum() + layer.penalty(weight)

    with frozen(conv):
        gradients = torch.autograd.grad(value(), [layer.log_sigma, weight])
        for parameter, gradient in zip((layer.log_sigma, weight), gradients, strict=True):
            for index in range(parameter.numel()):
                ends = []
                for sign in (1, -1):
                    parameter.data.view(-1)[index] += sign * step
                    ends.append(value().item())
                    parameter.data.view(-1)[index] -= sign * step
                assert gradient.flatten()[index].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)


def test_the_divergence_is_that_of_two_normal_laws():
    mean, log_sigma = numbers(50), numbers(50, seed=4)
    expected = kl_divergence(Normal(mean, log_sigma.exp()), Normal(0.0, torch.tensor(PRIOR, dtype=torch.float64)))
    assert_close(divergence_from_prior(mean, log_sigma, PRIOR), expected, rtol=1e-12, atol=1e-12)


def test_the_divergence_is_the_published_formula():
    """Value and gradients in float64, term by term: log(s_0 / s) + (s^2 + mu^2) / (2 s_0^2) - 1/2."""
    mean, log_sigma = (numbers(9, seed=seed).requires_grad_() for seed in (1, 2))
    found = divergence_from_prior(mean, log_sigma, PRIOR)
    gradients = torch.autograd.grad(found.sum(), [mean, log_sigma])
    for i in range(9):
        mu, sigma = mean[i].item(), math.exp(log_sigma[i].item())
        expected = math.log(PRIOR / sigma) + (sigma**2 + mu**2) / (2 * PRIOR**2) - 0.5
        assert found[i].item() == pytest.approx(expected, rel=1e-12)
        assert gradients[0][i].item() == pytest.approx(mu / PRIOR**2, rel=1e-12)
        assert gradients[1][i].item() == pytest.approx(sigma**2 / PRIOR**2 - 1, rel=1e-10)


@GRANULARITIES
def test_the_penalty_counts_each_weight(granularity, shape):
    conv, layer, weight = noisy(granularity, shape)
    sigma = layer.log_sigma.exp().expand(2, 2, 1, 2)
    expected = kl_divergence(Normal(weight, sigma), Normal(0.0, torch.tensor(PRIOR, dtype=torch.float64))).sum()
    assert_close(layer.penalty(weight), expected)
    (found,) = penalties(conv).values()
    assert_close(found, expected)


def test_penalties_take_the_weight_that_the_noise_receives():
    """After parametrizations of the user's own, of one or of several tensors."""

    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    linear = nn.Linear(3, 2).double()
    torch.nn.utils.parametrizations.weight_norm(linear)
    torch.nn.utils.parametrize.register_parametrization(linear, "weight", Doubled())
    weight = linear.weight.detach()
    inject(linear, weights=GaussianPosterior(prior_sigma=PRIOR))
    ((layer, term),) = penalties(linear).items()
    assert layer is noise_layers(linear)[0]
    assert_close(term, layer.penalty(weight))
    term.backward()
    assert linear.parametrizations.weight.original1.grad.abs().min() > 0


def test_strength_zero_is_no_noise_and_has_finite_gradients():
    conv, twin = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
    twin.load_state_dict(conv.state_dict())
    inject(conv, weights=GaussianPosterior(), strength=0.0)
    assert torch.equal(conv.weight, twin.weight)
    (conv.weight.sum() + sum(penalties(conv).values())).backward()
    assert all(parameter.grad.isfinite().all() for parameter in conv.parameters() if parameter.grad is not None)
    noise_layers(conv)[0].scale_(0.0)
    assert torch.equal(conv.weight, twin.weight)
    assert (noise_layers(conv)[0].log_sigma == SMALLEST_LOG_SIGMA).all()


def test_scaled_starts_weaker_under_the_same_prior():
    assert GaussianPosterior("channel", 0.5, 0.2).scaled(0.5) == GaussianPosterior("channel", 0.25, 0.2)


def test_it_is_described_by_json_and_switched_off_as_any_noise(images):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 4))
    clean, bare = network(images), copy.deepcopy(network)
    inject(network, weights=GaussianPosterior("channel", 0.3, 0.2))
    assert not torch.equal(network(images), network(images))
    with noiseless(network):
        assert torch.equal(network(images), clean)
    reinject(bare, injected_noise(network).to_json())
    bare.load_state_dict(network.state_dict())
    assert [layer.prior_sigma for layer in noise_layers(bare)] == [0.2, 0.2]
    with frozen(network, 4), frozen(bare, 4):
        assert torch.equal(bare(images), network(images))


def test_errors():
    with pytest.raises(ArgumentError, match="granularity: expected one of layer, channel, element, got 'row'"):
        GaussianPosterior("row")
    with pytest.raises(ArgumentError, match="initial_sigma: expected a finite number of at least 0, got -1"):
        GaussianPosterior(initial_sigma=-1)
    with pytest.raises(ArgumentError, match="prior_sigma: expected a deviation above 0, got 0"):
        GaussianPosterior(prior_sigma=0.0)
    with pytest.raises(ArgumentError, match="activations: expected PNI, CNI or Additive, got GaussianPosterior; pass"):
        inject(nn.Linear(2, 2), activations=GaussianPosterior())
