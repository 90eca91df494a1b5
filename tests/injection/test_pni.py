"""PNI's law by its moments, its gradients by finite differences."""

import pytest
import torch
from scipy import stats
from torch import nn
from torch.testing import assert_close

from smoothed.errors import ArgumentError
from smoothed.injection import PNI, frozen, inject
from smoothed.injection.inject import ACTIVATION_NOISE
from smoothed.injection.pni import PNILayer

DRAWS = 10_000


def numbers(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize(
    ("granularity", "shape"), [("layer", ()), ("channel", (2, 1, 1, 1)), ("element", (2, 2, 1, 2))]
)
class TestWeights:
    @pytest.mark.slow
    def test_law(self, granularity, shape):
        """Mean 0, covariance diag(alpha^2 var(W)), normal.

        Over 10000 draws an element's deviation is off by 0.7 % (one sigma), the mean of the eight by 0.25 %.
        """
        conv = nn.Conv2d(2, 2, (1, 2)).double()
        inject(conv, weights=PNI(granularity))
        alpha = 0.1 + numbers(*shape).abs()
        conv.parametrizations.weight[0].alpha.data.copy_(alpha)
        original = conv.parametrizations.weight.original.detach()
        with torch.no_grad():
            noise = torch.stack([conv.weight for _ in range(DRAWS)]).sub(original).flatten(1)
        mean = original.sum() / 8
        deviation = (((original - mean) ** 2).sum() / 7).sqrt()  # torch's, unbiased
        expected = (alpha * deviation).expand(2, 2, 1, 2).flatten()
        assert (noise.mean(0) / expected).abs().max() < 5 / DRAWS**0.5
        assert_close(noise.std(0), expected, rtol=0.035, atol=0)
        assert abs((noise.std(0) / expected).mean().item() - 1) < 0.0125
        assert (torch.corrcoef(noise.T) - torch.eye(8)).abs().max() < 5 / DRAWS**0.5
        assert stats.kstest((noise / expected).flatten().numpy(), "norm").pvalue > 1e-3

    def test_starts_at_a_quarter(self, granularity, shape):
        conv = nn.Conv2d(2, 2, (1, 2))
        inject(conv, weights=PNI(granularity))
        assert_close(conv.parametrizations.weight[0].alpha, nn.Parameter(torch.full(shape, 0.25)))

    def test_gradient_of_alpha_by_finite_differences(self, granularity, shape):
        conv = nn.Conv2d(2, 2, (1, 2)).double()
        inject(conv, weights=PNI(granularity))
        alpha, upstream = conv.parametrizations.weight[0].alpha, numbers(2, 2, 1, 2)
        assert alpha.shape == shape
        with frozen(conv):
            (gradient,) = torch.autograd.grad((conv.weight * upstream).sum(), alpha)
            expected = torch.zeros_like(alpha).flatten()
            for index in range(alpha.numel()):
                ends = []
                for step in (1e-5, -1e-5):
                    alpha.data.view(-1)[index] += step
                    ends.append((conv.weight * upstream).sum().item())
                    alpha.data.view(-1)[index] -= step
                expected[index] = (ends[0] - ends[1]) / 2e-5
        assert_close(gradient.flatten(), expected, rtol=1e-6, atol=1e-8)
        assert gradient.abs().min() > 1e-4

    def test_no_gradient_through_the_deviation(self, granularity, shape):
        del shape
        conv = nn.Conv2d(2, 2, (1, 2)).double()
        inject(conv, weights=PNI(granularity, initial=3.0))
        upstream = numbers(2, 2, 1, 2)
        (gradient,) = torch.autograd.grad((conv.weight * upstream).sum(), conv.parametrizations.weight.original)
        assert torch.equal(gradient, upstream)


@pytest.mark.parametrize(("granularity", "shape"), [("layer", ()), ("channel", (3, 1, 1))])
@pytest.mark.parametrize("site", ["input", "output"])
def test_law_of_activations(granularity, shape, site):
    """Two images of different spread: deviation alpha * std(that image), independent over pixels and images."""
    scale = torch.tensor([1.0, -2.0, 3.0]).double()
    conv = nn.Conv2d(3, 3, 1, bias=False).double()
    conv.weight.data.copy_(torch.diag(scale).view(3, 3, 1, 1))
    inject(conv, activations=PNI(granularity, site=site))
    alpha = 0.1 + numbers(*shape).abs()
    getattr(conv, ACTIVATION_NOISE).alpha.data.copy_(alpha)
    pair = torch.stack([numbers(3, 1, 2), 5 * numbers(3, 1, 2, seed=4)])
    with torch.no_grad():
        outputs = conv(pair.repeat(DRAWS, 1, 1, 1)).unflatten(0, (DRAWS, 2))
    clean = pair * scale.view(3, 1, 1)
    noise = (outputs - clean).flatten(1)  # draws by (image, channel, pixel)
    noisy, gain = (pair, scale.abs().view(3, 1, 1)) if site == "input" else (clean, torch.ones(3, 1, 1))
    spread = torch.stack([((image - image.mean()) ** 2).sum().div(5).sqrt() for image in noisy])
    expected = (spread.view(2, 1, 1, 1) * alpha * gain).expand(2, 3, 1, 2).flatten()
    assert (noise.mean(0) / expected).abs().max() < 5 / DRAWS**0.5
    assert_close(noise.std(0), expected, rtol=0.035, atol=0)
    assert (torch.corrcoef(noise.T) - torch.eye(12)).abs().max() < 5 / DRAWS**0.5


def test_no_gradient_through_an_activations_deviation():
    layer = PNILayer((3, 1, 1), 2.0, per_row=True).double()
    inputs, upstream = numbers(4, 3, 2, 2).requires_grad_(), numbers(4, 3, 2, 2, seed=9)
    (gradient,) = torch.autograd.grad((layer(inputs) * upstream).sum(), inputs)
    assert torch.equal(gradient, upstream)


def test_channel_of_a_linear_layer_on_sequences_is_its_feature():
    layer = nn.Linear(3, 3, bias=False)
    layer.weight.data.copy_(torch.eye(3))
    inject(layer, activations=PNI("channel"))
    getattr(layer, ACTIVATION_NOISE).alpha.data.copy_(torch.tensor([0.0, 1.0, 0.0]))
    inputs = torch.randn(2, 5, 3)
    noise = layer(inputs) - inputs
    assert noise[..., 1].abs().min() > 0
    assert not noise[..., 0::2].any()


def test_scaled_starts_weaker():
    assert PNI("channel", "output").scaled(0.5) == PNI("channel", "output", 0.125)


def test_errors():
    with pytest.raises(ArgumentError, match="granularity: expected one of layer, channel, element, got 'row'"):
        PNI("row")
    with pytest.raises(ArgumentError, match="site: expected one of input, output, got 'middle'"):
        PNI(site="middle")
    with pytest.raises(ArgumentError, match="granularity of PNI on activations: expected one of layer, channel"):
        inject(nn.Linear(2, 2), activations=PNI("element"))


def test_an_error_leaves_the_model_without_noise():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match="granularity"):
        inject(network, weights=PNI(), activations=PNI("element"))
    assert list(network.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
