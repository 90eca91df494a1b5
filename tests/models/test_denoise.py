"""Feature denoising against its published formulae in float64, value and gradient, and as a network of this package."""

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from smoothed.acceleration.fusing import fuse
from smoothed.checkpoint import describe, load, save
from smoothed.errors import ArgumentError
from smoothed.injection import inject_preset, noise_from
from smoothed.models import CIFAR10_MEAN, CIFAR10_STD, DenoisingResNet, ResNet, build
from smoothed.models.denoise import DenoisingBlock, dot_product_means, gaussian_means
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Keyed

sys.path.insert(0, str(Path(__file__).parents[1]))
from fusible import assert_same, learned

WEIGHTINGS = pytest.mark.parametrize("weighting", ["gaussian", "dot_product"])


def numbers(*shape, seed=3):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def literal_means(features, weights_of):
    """The mean over positions j of the features x_j with weights `weights_of(n, i)`, position by position."""
    pixels = features.flatten(2)
    rows = []
    for n in range(len(features)):
        means = [
            sum(w * pixels[n, :, j] for j, w in enumerate(weights_of(n, i, pixels))) for i in range(pixels.shape[2])
        ]
        rows.append(torch.stack(means, 1))
    return torch.stack(rows).view(features.shape)


def assert_same_values_and_gradients(found, expected, inputs):
    assert found.dtype == torch.float64
    assert_close(found, expected, rtol=1e-10, atol=1e-12)
    upstream = numbers(*found.shape, seed=9)
    gradients = [torch.autograd.grad((value * upstream).sum(), inputs) for value in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.abs().max() > 1e-3
        assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_gaussian_means():
    """Weights exp(theta_i . phi_j / sqrt(d)) over their sum, d = 2."""
    features = numbers(2, 4, 3, 2).requires_grad_()
    theta, phi = (numbers(2, 2, 3, 2, seed=seed).requires_grad_() for seed in (4, 5))

    def weights(n, i, _):
        queries, keys = theta.flatten(2)[n], phi.flatten(2)[n]
        powers = [((queries[:, i] * keys[:, j]).sum() / math.sqrt(2)).exp() for j in range(6)]
        return [power / sum(powers) for power in powers]

    assert_same_values_and_gradients(
        gaussian_means(theta, phi, features), literal_means(features, weights), [theta, phi, features]
    )


def test_dot_product_means():
    """Weights x_i . x_j / N, which do not sum to 1."""
    features = numbers(2, 4, 3, 2).requires_grad_()

    def weights(n, i, pixels):
        return [(pixels[n, :, i] * pixels[n, :, j]).sum() / 6 for j in range(6)]

    assert_same_values_and_gradients(dot_product_means(features), literal_means(features, weights), [features])


@WEIGHTINGS
def test_a_block_adds_a_normalised_convolution_of_the_means(weighting):
    block, features = learned(DenoisingBlock(4, weighting)), numbers(2, 4, 3, 2)
    if weighting == "gaussian":
        theta, phi = (
            torch.einsum("dc,nchw->ndhw", each.weight[:, :, 0, 0], features) for each in (block.theta, block.phi)
        )
        means = gaussian_means(theta, phi, features)
    else:
        means = dot_product_means(features)
    outputs = torch.einsum("dc,nchw->ndhw", block.conv.weight[:, :, 0, 0], means)
    norm = block.bn
    shape = (4, 1, 1)
    outputs = (outputs - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
    expected = features + outputs * norm.weight.view(shape) + norm.bias.view(shape)
    assert_close(block(features), expected)


@WEIGHTINGS
def test_a_new_block_changes_nothing(weighting):
    features = numbers(2, 4, 3, 2).float()
    assert torch.equal(DenoisingBlock(4, weighting).train()(features), features)


def test_embeddings_start_small_and_the_convolution_does_not():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = DenoisingBlock(64, "gaussian")
    for embedding in (block.theta, block.phi):
        assert embedding.weight.shape == (32, 64, 1, 1)
        assert embedding.bias is None
        assert embedding.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert block.conv.weight.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.1)


@pytest.mark.parametrize(("architecture", "embeddings"), [("resnet20-denoise", 0), ("resnet20-denoise-gaussian", 1)])
def test_parameters_are_those_of_the_resnet_and_of_three_blocks(architecture, embeddings):
    """A block of C channels has two embeddings to C / 2, a convolution to C and a batch norm."""
    with torch.device("meta"):
        counts = [sum(p.numel() for p in build(name).parameters()) for name in (architecture, "resnet20")]
    assert counts[0] - counts[1] == sum(embeddings * c * c + c * c + 2 * c for c in (16, 32, 64))


@WEIGHTINGS
def test_blocks_follow_the_stages(weighting):
    model, order = DenoisingResNet(8, 4, CIFAR10_MEAN, CIFAR10_STD, weighting=weighting), []
    for name in ("layer1", "denoise1", "layer2", "denoise2", "layer3", "denoise3"):
        model.get_submodule(name).register_forward_hook(
            lambda _, args, output, name=name: order.append((name, args[0].shape == output.shape))
        )
    model(torch.rand(1, 3, 16, 16))
    assert [name for name, _ in order] == ["layer1", "denoise1", "layer2", "denoise2", "layer3", "denoise3"]
    assert all(same for name, same in order if name.startswith("denoise"))


def small(weighting):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return learned(DenoisingResNet(8, 4, CIFAR10_MEAN, CIFAR10_STD, weighting=weighting))


@WEIGHTINGS
def test_images_of_a_batch_do_not_meet_and_every_parameter_takes_part(weighting):
    model, inputs = small(weighting), torch.rand(4, 3, 16, 16, generator=seeded(1), dtype=torch.float64)
    assert_close(model(inputs)[1:2], model(inputs[1:2]))
    model.train()(inputs).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@WEIGHTINGS
def test_it_is_fused_for_attacks_and_votes(weighting):
    """With noise on all weights, those of the blocks too."""
    model, inputs = small(weighting), torch.rand(2, 3, 16, 16, generator=seeded(1), dtype=torch.float64)
    inject_preset(model, "cni-w")
    fused = fuse(model)
    assert {layer.name for layer in fused.weights.layers} > {"model.denoise1.conv", "model.denoise3.conv"}
    assert_same(fused, inputs)
    keys, logits = [Keyed(5, draw) for draw in range(3)], []
    with torch.no_grad():
        stacked = fused.stacked(inputs.expand(3, *inputs.shape), keys)
        for key in keys:
            with noise_from(fused, key):
                logits.append(fused(inputs))
    assert_close(stacked, torch.stack(logits))


def test_a_checkpoint_is_loaded(tmp_path):
    model = build("resnet20-denoise").eval()
    nn.init.ones_(model.denoise1.bn.weight)
    path = save(tmp_path / "a.safetensors", model, describe("resnet20-denoise", model, [], ("a",) * 10))
    inputs = torch.rand(2, 3, 32, 32, generator=seeded(1))
    assert torch.equal(load(path)(inputs), model(inputs))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = ResNet(20, 10, CIFAR10_MEAN, CIFAR10_STD)
    assert {name for name in model.state_dict() if "denoise" not in name} == set(plain.state_dict())


def test_an_unknown_weighting():
    with pytest.raises(ArgumentError, match="weighting: expected one of dot_product, gaussian, got 'median'"):
        DenoisingBlock(4, "median")
