"""Noise of an absolute deviation: its law, its learned strength by finite differences, and where it may be."""

import copy

import pytest
import torch
from scipy import stats
from torch import nn
from torch.testing import assert_close

from smoothed.errors import ArgumentError
from smoothed.injection import Additive, frozen, inject, noise_from, noise_layers, noiseless, reinject
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh, Keyed

DRAWS = 10_000
laws = pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
sites = pytest.mark.parametrize("site", ["input", "output"])


def numbers(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def seeded_globally():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def scaling(sigma, site="input", *, learned=False):
    """Three channels times 1, -2 and 3, with noise before or after it."""
    conv = nn.Conv2d(3, 3, 1, bias=False).double()
    conv.weight.data.copy_(torch.diag(torch.tensor([1.0, -2.0, 3.0])).view(3, 3, 1, 1))
    inject(conv, activations=Additive(sigma, learned=learned, site=site))
    return conv


@laws
@sites
def test_law(site, learned):
    """Deviation sigma in every pixel whatever the image, all independent, normal: KS at 1e-3, seed fixed."""
    conv, pair = scaling(0.7, site, learned=learned), torch.stack([numbers(3, 1, 2), 50 * numbers(3, 1, 2, seed=4)])
    factors = torch.tensor([1.0, -2.0, 3.0]).double().view(3, 1, 1)
    with torch.no_grad():
        outputs = conv(pair.repeat(DRAWS, 1, 1, 1)).unflatten(0, (DRAWS, 2))
    noise = (outputs - pair * factors) / (factors if site == "input" else 1)
    noise = noise.flatten(1)  # draws by (image, channel, pixel)
    assert noise.mean(0).abs().max() < 5 * 0.7 / DRAWS**0.5
    # Over 10000 draws a deviation is off by 0.7 % (one sigma).
    assert_close(noise.std(0), torch.full((12,), 0.7).double(), rtol=0.035, atol=0)
    assert (torch.corrcoef(noise.T) - torch.eye(12)).abs().max() < 5 / DRAWS**0.5
    assert stats.kstest((noise / 0.7).flatten().numpy(), "norm").pvalue > 1e-3


@laws
def test_where_the_strength_is_kept(learned):
    layer = noise_layers(scaling(0.2, learned=learned))[0]
    assert list(layer.state_dict()) == ["sigma"]
    assert [name for name, _ in layer.named_parameters()] == (["sigma"] if learned else [])
    assert [name for name, _ in layer.named_buffers()] == ([] if learned else ["sigma"])
    assert_close(layer.sigma.item(), 0.2)
    assert layer.sigma.dtype == torch.float64


@laws
def test_round_trips(learned):
    conv = scaling(0.2, "output", learned=learned)
    noise_layers(conv)[0].scale_(4.0)
    twin = nn.Conv2d(3, 3, 1, bias=False).double()
    reinject(twin, [{"layer": "", "target": "activation", "law": "Additive", "learned": learned, "site": "output"}])
    twin.load_state_dict(conv.state_dict())
    inputs = numbers(4, 3, 2, 2)
    with frozen(conv), frozen(twin):
        assert torch.equal(conv(inputs), twin(inputs))


@sites
def test_gradients_by_finite_differences(site):
    conv, inputs, upstream = scaling(0.3, site, learned=True), numbers(2, 3, 2, 2), numbers(2, 3, 2, 2, seed=9)
    sigma = conv.activation_noise.sigma
    inputs.requires_grad_()
    with frozen(conv):
        gradient, through = torch.autograd.grad((conv(inputs) * upstream).sum(), [sigma, inputs])
        ends = []
        for step in (1e-6, -2e-6):
            sigma.data += step
            ends.append((conv(inputs) * upstream).sum().item())
    assert_close(gradient.item(), (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-8)
    assert abs(gradient) > 1e-2
    assert_close(through, upstream * torch.tensor([1.0, -2.0, 3.0]).double().view(3, 1, 1))


def test_noise_is_fresh_each_images_own_and_can_be_switched_off():
    conv, image = scaling(0.3), numbers(1, 3, 2, 2)
    with noiseless(conv):
        clean = conv(image)
    first, second = conv(image.repeat(4, 1, 1, 1)), conv(image.repeat(4, 1, 1, 1))
    assert (first - second).abs().min() > 0
    for row in range(4):
        for other in range(row):
            assert (first[row] - first[other]).abs().min() > 0
    assert torch.equal(clean, image * torch.tensor([1.0, -2.0, 3.0]).double().view(3, 1, 1))
    conv.train()
    assert (conv(image) - clean).abs().min() > 0


def test_noise_follows_the_image_and_not_its_batch():
    conv, images = scaling(0.3), numbers(6, 3, 2, 2)
    with noise_from(conv, Keyed(9, 2, range(10, 16))):
        whole = conv(images)
    with noise_from(conv, Keyed(9, 2, [13, 10])):
        assert torch.equal(conv(images[[3, 0]]), whole[[3, 0]])


def test_a_generator_decides():
    conv, images = scaling(0.3), numbers(6, 3, 2, 2)
    ends = []
    for _ in range(2):
        with noise_from(conv, Fresh(seeded(4))):
            ends.append(conv(images))
    assert torch.equal(*ends)


@laws
def test_scale(learned):
    conv, inputs = scaling(0.3, learned=learned), numbers(2, 3, 2, 2)
    with noiseless(conv):
        clean = conv(inputs)
    with frozen(conv):
        before = conv(inputs) - clean
        noise_layers(conv)[0].scale_(2.5)
        assert_close(conv(inputs) - clean, 2.5 * before)


def test_scaled_scales_the_start():
    assert Additive(0.2, learned=True, site="output").scaled(0.5) == Additive(0.1, learned=True, site="output")


@pytest.mark.parametrize(("layer", "shape"), [(nn.Linear(3, 2), (5, 7, 3)), (nn.Conv1d(3, 2, 1), (5, 3, 4))])
@sites
def test_other_layers(site, layer, shape):
    layer = copy.deepcopy(layer)
    inject(layer, activations=Additive(0.5, site=site))
    inputs = torch.rand(shape)
    assert (layer(inputs) - layer(inputs)).abs().max() > 1e-3


def test_errors():
    layer = nn.Linear(2, 2)
    with pytest.raises(ArgumentError, match="weights: expected PNI or CNI, got Additive; pass it as activations="):
        inject(layer, weights=Additive(), activations=Additive())
    assert type(layer) is nn.Linear
    assert not noise_layers(layer)
    with pytest.raises(ArgumentError, match="site: expected one of input, output, got 'middle'"):
        Additive(site="middle")
    for value in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ArgumentError, match="initial: expected a finite number of at least 0"):
            Additive(value)
