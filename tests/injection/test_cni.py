"""CNI's law by its whole covariance, diag(|std d|) + F F^T, and its gradients by finite differences."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from smoothed.errors import ArgumentError
from smoothed.injection import CNI, PNI, frozen, inject
from smoothed.injection.cni import CNILayer
from smoothed.injection.inject import ACTIVATION_NOISE

DRAWS = 10_000
# An entry of an empirical covariance, over sqrt(C_ii C_jj), has a deviation of at most sqrt(2 / DRAWS) = 0.014.
TOLERANCE = 0.07


def numbers(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spread(values):
    return ((values - values.mean()) ** 2).sum().div(values.numel() - 1).sqrt()


def check_law(noise, covariance):
    """Mean 0 and the given covariance, every entry, of `noise` (draws, entries)."""
    deviation = covariance.diagonal().sqrt()
    assert (noise.mean(0) / deviation).abs().max() < 5 / DRAWS**0.5
    error = (torch.cov(noise.T) - covariance) / deviation.outer(deviation)
    assert error.abs().max() < TOLERANCE


def far(covariance, wrong):
    """Whether `check_law` would tell the two apart: twice the tolerance lies between them."""
    deviation = covariance.diagonal().sqrt()
    return ((wrong - covariance) / deviation.outer(deviation)).abs().max() > 2 * TOLERANCE


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def conv():
    """A convolution with a weight of 8 elements whose noise has been trained: d of either sign, any F."""
    conv = nn.Conv2d(2, 2, (1, 2)).double()
    inject(conv, weights=CNI(rank=3))
    noise = conv.parametrizations.weight[0]
    noise.variance.data.copy_(0.3 * numbers(2, 2, 1, 2))
    noise.factor.data.copy_(0.2 * numbers(8, 3, seed=4))
    return conv


class TestWeights:
    @pytest.mark.slow
    def test_law(self, conv):
        noise, original = conv.parametrizations.weight[0], conv.parametrizations.weight.original.detach()
        with torch.no_grad():
            draws = torch.stack([conv.weight for _ in range(DRAWS)]).sub(original).flatten(1)
        variance, factor, deviation = noise.variance.detach().flatten(), noise.factor.detach(), spread(original)
        assert variance.min() < 0 < variance.max()
        diagonal, low_rank = torch.diag((deviation * variance).abs()), factor @ factor.T
        check_law(draws, diagonal + low_rank)
        wrongs = diagonal, low_rank, diagonal + deviation**2 * low_rank, diagonal**2 + low_rank
        for wrong in (*wrongs, diagonal / deviation + low_rank):
            assert far(diagonal + low_rank, wrong)

    def test_starting_values(self):
        conv = nn.Conv2d(2, 3, 3)
        inject(conv, weights=CNI())
        noise = conv.parametrizations.weight[0]
        assert_close(noise.variance, nn.Parameter(torch.full((3, 2, 3, 3), 0.25**2)))
        assert_close(noise.factor, nn.Parameter(torch.full((54, 5), 0.01)))

    def test_gradients_by_finite_differences(self, conv):
        noise, upstream = conv.parametrizations.weight[0], numbers(2, 2, 1, 2, seed=5)
        with frozen(conv):
            gradients = torch.autograd.grad((conv.weight * upstream).sum(), [noise.variance, noise.factor])
            for parameter, gradient in zip([noise.variance, noise.factor], gradients, strict=True):
                expected = torch.zeros(parameter.numel()).double()
                for index in range(parameter.numel()):
                    ends = []
                    for step in (1e-6, -1e-6):
                        parameter.data.view(-1)[index] += step
                        ends.append((conv.weight * upstream).sum().item())
                        parameter.data.view(-1)[index] -= step
                    expected[index] = (ends[0] - ends[1]) / 2e-6
                assert_close(gradient.flatten(), expected, rtol=1e-5, atol=1e-7)
                assert gradient.abs().min() > 1e-4

    def test_no_gradient_through_the_deviation(self, conv):
        upstream = numbers(2, 2, 1, 2, seed=5)
        (gradient,) = torch.autograd.grad((conv.weight * upstream).sum(), conv.parametrizations.weight.original)
        assert torch.equal(gradient, upstream)

    @pytest.mark.slow
    def test_rank_zero_is_pni(self):
        """alpha^2 std(W)^2 = std(W) d: the two laws then are one, and so are the noises of one key."""
        cni, pni = nn.Linear(4, 2).double(), nn.Linear(4, 2).double()
        pni.load_state_dict(cni.state_dict())
        inject(cni, weights=CNI(rank=0))
        inject(pni, weights=PNI("element"))
        original = pni.parametrizations.weight.original.detach()
        alpha = 0.1 + numbers(2, 4).abs()
        pni.parametrizations.weight[0].alpha.data.copy_(alpha)
        cni.parametrizations.weight[0].variance.data.copy_(alpha**2 * spread(original))
        with frozen(cni), frozen(pni):  # eight normals either way, in torch's one order
            assert_close(cni.weight, pni.weight)
        with torch.no_grad():
            draws = torch.stack([cni.weight for _ in range(DRAWS)]).sub(original).flatten(1)
        check_law(draws, torch.diag((alpha * spread(original)).flatten() ** 2))

    @pytest.mark.parametrize("rank", [0, 5])
    def test_zero_variance_keeps_gradients_finite(self, rank):
        layer = nn.Linear(4, 2)
        inject(layer, weights=CNI(rank=rank, initial_variance=0.0))
        parameters = list(layer.parameters())
        gradients = torch.autograd.grad((layer.weight * 3).sum(), parameters, allow_unused=True)
        assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)


class TestActivations:
    @pytest.mark.parametrize("site", ["input", "output"])
    def test_law(self, site):
        """One covariance over channels at each position of each image; positions and images are independent."""
        scale = torch.tensor([1.0, -2.0, 3.0]).double()
        conv = nn.Conv2d(3, 3, 1, bias=False).double()
        conv.weight.data.copy_(torch.diag(scale).view(3, 3, 1, 1))
        inject(conv, activations=CNI(rank=2, site=site))
        noise = getattr(conv, ACTIVATION_NOISE)
        noise.variance.data.copy_(torch.tensor([0.3, -0.7, 0.5]))
        noise.factor.data.copy_(0.6 * numbers(3, 2))
        pair = torch.stack([numbers(3, 1, 2), 5 * numbers(3, 1, 2, seed=4)])
        clean = pair * scale.view(3, 1, 1)
        with torch.no_grad():
            outputs = conv(pair.repeat(DRAWS, 1, 1, 1)).unflatten(0, (DRAWS, 2))
        draws = (outputs - clean).permute(0, 1, 3, 4, 2).flatten(1)  # by (image, position, channel)
        noisy, gain = (pair, torch.diag(scale)) if site == "input" else (clean, torch.eye(3).double())
        variance, factor = noise.variance.detach(), noise.factor.detach()
        blocks = [
            gain @ (torch.diag((spread(image) * variance).abs()) + factor @ factor.T) @ gain
            for image in noisy
            for _ in range(2)
        ]
        check_law(draws, torch.block_diag(*blocks))
        deviation, low_rank = spread(noisy[0]), factor @ factor.T
        diagonal = torch.diag((deviation * variance).abs())
        for wrong in (diagonal, diagonal + deviation**2 * low_rank, diagonal**2 + low_rank):
            assert far(blocks[0], gain @ wrong @ gain)

    def test_law_of_a_linear_layer_on_sequences(self):
        """Features are last; a sequence's positions are independent."""
        layer = nn.Linear(3, 3, bias=False).double()
        layer.weight.data.copy_(torch.eye(3))
        inject(layer, activations=CNI(rank=2))
        noise = getattr(layer, ACTIVATION_NOISE)
        noise.variance.data.copy_(torch.tensor([0.3, -0.7, 0.5]))
        noise.factor.data.copy_(0.6 * numbers(3, 2))
        inputs = numbers(1, 2, 3)
        with torch.no_grad():
            draws = (layer(inputs.expand(DRAWS, 2, 3)) - inputs).flatten(1)
        variance, factor = noise.variance.detach(), noise.factor.detach()
        block = torch.diag((spread(inputs) * variance).abs()) + factor @ factor.T
        check_law(draws, torch.block_diag(block, block))

    def test_starting_values_are_by_channel(self):
        conv = nn.Conv2d(2, 3, 3)
        inject(conv, activations=CNI(site="output"))
        noise = getattr(conv, ACTIVATION_NOISE)
        assert_close(noise.variance, nn.Parameter(torch.full((3,), 0.25**2)))
        assert_close(noise.factor, nn.Parameter(torch.full((3, 5), 0.01)))

    def test_gradients_by_finite_differences(self):
        layer = CNILayer((3,), CNI(rank=2), per_row=True).double()
        layer.variance.data.copy_(torch.tensor([0.3, -0.7, 0.5]))
        layer.factor.data.copy_(0.6 * numbers(3, 2))
        inputs, upstream = numbers(4, 3, 2, 2).requires_grad_(), numbers(4, 3, 2, 2, seed=9)
        with frozen(layer):
            variance, factor, through = torch.autograd.grad(
                (layer(inputs) * upstream).sum(), [layer.variance, layer.factor, inputs]
            )
            for parameter, gradient in ((layer.variance, variance), (layer.factor, factor)):
                expected = torch.zeros(parameter.numel()).double()
                for index in range(parameter.numel()):
                    ends = []
                    for step in (1e-6, -1e-6):
                        parameter.data.view(-1)[index] += step
                        ends.append((layer(inputs) * upstream).sum().item())
                        parameter.data.view(-1)[index] -= step
                    expected[index] = (ends[0] - ends[1]) / 2e-6
                assert_close(gradient.flatten(), expected, rtol=1e-5, atol=1e-7)
        assert torch.equal(through, upstream)  # none through the deviation


def test_scaled_scales_the_deviation():
    """Half the deviation is a quarter of d and half of F."""
    scaled = CNI(3, "output").scaled(0.5)
    assert scaled == CNI(3, "output", initial_variance=0.25**2 / 4, initial_factor=0.005)


def test_errors():
    with pytest.raises(ArgumentError, match="rank: expected an integer of at least 0, got -1"):
        CNI(rank=-1)
    with pytest.raises(ArgumentError, match="site: expected one of input, output, got 'middle'"):
        CNI(site="middle")
