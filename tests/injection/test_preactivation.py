"""Variational dropout drawn at the outputs: each has the law of drawn weights, and each image its own draw."""

import copy

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

from smoothed.errors import ArgumentError
from smoothed.injection import (
    PNI,
    VariationalDropout,
    frozen,
    inject,
    inject_preset,
    injected_noise,
    noise_from,
    noise_layers,
    noiseless,
    penalties,
    reinject,
)
from smoothed.rng.rows import RowGenerator
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Keyed, ShardSource

DRAWS = 10_000
LAYERS = {
    "linear": (lambda: nn.Linear(4, 3), (2, 4)),
    "sequence": (lambda: nn.Linear(4, 3), (2, 5, 4)),
    "conv": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 2, 5, 5)),
    "grouped": (lambda: nn.Conv1d(4, 4, 3, groups=2, dilation=2, bias=False), (2, 4, 9)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 2, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1), (2, 2, 3, 3)),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(4, 3)), (2, 4)),
}


def numbers(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noisy(name, granularity="element"):
    """A layer with alphas of its own, its inputs, and its outputs without noise."""
    make, shape = LAYERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layer = make().double()
    inputs = numbers(*shape, seed=4)
    clean = layer(inputs).detach()
    inject(layer, activations=VariationalDropout(granularity))
    noise = layer.activation_noise
    noise.log_alpha.data.copy_(-numbers(*noise.log_alpha.shape).abs())
    return layer, inputs, clean


def variance(layer, inputs, clean):
    """The variance of each output, from the effect of each weight on it: outputs are linear in the weight."""
    weight = layer.weight.detach()
    deviation = layer.activation_noise.log_alpha.detach().exp().sqrt() * weight
    bare = copy.deepcopy(layer) if not hasattr(layer, "parametrizations") else None
    total = torch.zeros_like(clean)
    for index in range(weight.numel()):
        change = torch.zeros_like(weight)
        change.view(-1)[index] = deviation.reshape(-1)[index]
        if bare is None:  # weight norm, of a linear layer
            total += nn.functional.linear(inputs, change).square()
            continue
        bare.weight.data = change
        if bare.bias is not None:
            bare.bias.data.zero_()
        with noiseless(bare):
            total += bare(inputs).detach().square()
    return total


@pytest.mark.parametrize("name", LAYERS)
def test_a_draw_is_the_mean_plus_the_deviation_of_the_outputs(name):
    """Of the same normals; whatever the geometry of the layer."""
    layer, inputs, clean = noisy(name)
    with noise_from(layer, Keyed(6, 2)):
        found = layer(inputs)
    normals = Keyed(6, 2).rows(1, clean.shape, clean)
    deviation = variance(layer, inputs, clean).clamp_min(1e-12).sqrt()  # outputs without inputs have almost none
    assert_close(found, clean + deviation * normals, rtol=1e-9, atol=1e-9)
    with noiseless(layer):
        assert torch.equal(layer(inputs), clean)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear", "conv"])
def test_each_output_has_the_law_that_drawn_weights_give_it(name):
    """Mean, deviation and normality against the noise drawn for the weights; outputs no longer share it."""
    layer, inputs, clean = noisy(name)
    twin = LAYERS[name][0]().double()
    twin.load_state_dict({key: value for key, value in layer.state_dict().items() if "noise" not in key})
    inject(twin, weights=VariationalDropout())
    noise_layers(twin)[0].log_alpha.data.copy_(layer.activation_noise.log_alpha)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        local = layer(inputs.repeat(DRAWS, *[1] * (inputs.ndim - 1))).view(DRAWS, -1)  # each image has its own draw
        shared = torch.stack([twin(inputs) for _ in range(DRAWS // 5)]).flatten(1)
    assert_close(local.std(0), shared.std(0), rtol=0.08, atol=0)
    deviation = shared.std(0)
    assert ((local.mean(0) - clean.flatten()) / deviation).abs().max() < 5 / DRAWS**0.5
    scaled = (local - clean.flatten()) / variance(layer, inputs, clean).flatten().sqrt()
    assert stats.kstest(scaled.flatten()[:: scaled.shape[1] + 1].numpy(), "norm").pvalue > 1e-3
    correlations = torch.corrcoef(local.T) - torch.eye(local.shape[1])
    assert correlations.abs().max() < 5.5 / DRAWS**0.5
    assert (torch.corrcoef(shared.T) - torch.eye(local.shape[1])).abs().max() > 0.3


@pytest.mark.parametrize("granularity", ["layer", "channel", "element"])
@pytest.mark.parametrize("name", ["linear", "conv"])
def test_gradients_by_finite_differences(name, granularity):
    """Of log(alpha), the weight and the inputs, which all scale the noise."""
    layer, inputs, clean = noisy(name, granularity)
    upstream, step = numbers(*clean.shape, seed=5), 1e-6
    inputs.requires_grad_()
    tensors = [layer.activation_noise.log_alpha, layer.weight, inputs]
    with frozen(layer):
        gradients = torch.autograd.grad((layer(inputs) * upstream).sum(), tensors)
        for tensor, gradient in zip(tensors, gradients, strict=True):
            for index in range(0, tensor.numel(), 5):
                ends = []
                for sign in (1, -1):
                    tensor.data.view(-1)[index] += sign * step
                    ends.append((layer(inputs) * upstream).sum().item())
                    tensor.data.view(-1)[index] -= sign * step
                expected = (ends[0] - ends[1]) / (2 * step)
                assert gradient.flatten()[index].item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_inputs_of_zero_give_finite_gradients():
    """After a ReLU, all inputs of an output may be 0: its deviation is 0, and its gradient is not infinite."""
    layer, inputs, _ = noisy("conv")
    inputs = torch.zeros_like(inputs).requires_grad_()
    layer(inputs).sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in (inputs, *layer.parameters()))


def test_the_term_of_the_loss_is_that_of_the_weights():
    layer, _, _ = noisy("conv")
    twin = nn.Conv2d(2, 3, 3).double()
    inject(twin, weights=VariationalDropout())
    noise_layers(twin)[0].log_alpha.data.copy_(layer.activation_noise.log_alpha)
    ((found,), (expected,)) = (list(penalties(module).values()) for module in (layer, twin))
    assert_close(found, expected)


def test_each_image_has_noise_of_its_own(network, images):
    """Equal images of a batch differ, and parts of a batch have the noise of the whole."""
    inject_preset(network, "vdo-a")
    equal = network(images[:1].expand(3, -1, -1, -1))
    assert not torch.equal(equal[0], equal[1])

    def run(rows, first):
        with noise_from(network, ShardSource(seeded(0), RowGenerator(5, first))):
            return network.eval()(images[rows])

    whole = run(slice(None), 0)
    assert_close(torch.cat([run(slice(None, 1), 0), run(slice(1, None), 1)]), whole, rtol=1e-4, atol=1e-5)


def test_half_precision_computes_the_noise_in_full(network, images):
    inject_preset(network, "vdo-a")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(images)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_it_is_described_by_json_undone_and_copied(network, images):
    clean, bare = network(images), copy.deepcopy(network)
    injection = inject(network, activations=VariationalDropout("channel", 0.3))
    reinject(bare, injected_noise(network).to_json())
    bare.load_state_dict(network.state_dict())
    twin = copy.deepcopy(network)
    with frozen(network, 4), frozen(bare, 4), frozen(twin, 4):
        assert torch.equal(bare(images), network(images))
        assert torch.equal(twin(images), network(images))
        assert not torch.equal(network(images), clean)
    injection.undo()
    assert torch.equal(network(images), clean)


def test_strength_scales_the_noise():
    layer, inputs, clean = noisy("conv")
    with frozen(layer):
        before = layer(inputs) - clean
        layer.activation_noise.scale_(2.0)
        assert_close(layer(inputs) - clean, 2 * before)


def test_noise_of_one_kind_only():
    """The deviation at the outputs is that of a weight without noise of its own."""
    message = "activations: expected layers without noise on their weight for VariationalDropout, .* got noise on"
    for first, second in (
        ({"weights": PNI(), "activations": VariationalDropout()}, None),
        ({"weights": PNI()}, {"activations": VariationalDropout()}),
        ({"activations": VariationalDropout()}, {"weights": PNI()}),
    ):
        linear = nn.Linear(2, 2)
        if second is not None:
            inject(linear, **first)
        with pytest.raises(ArgumentError, match=message):
            inject(linear, **(second or first))
    linear = nn.Linear(2, 2)
    inject(linear, activations=VariationalDropout())
    with pytest.raises(ArgumentError, match=r"model: expected layers without noise, got .*activation, which al"):
        inject(linear, activations=PNI())
