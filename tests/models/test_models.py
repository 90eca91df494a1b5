"""The networks against their papers' numbers, and normalisation against its formula."""

import numpy as np
import pytest
import torch
from torch import nn

from quick import first
from smoothed.errors import ArgumentError
from smoothed.models import ARCHITECTURES, CIFAR10_MEAN, CIFAR10_STD, Normalize, ResNet, WideResNet, build

# He et al. (2016), table 6, in millions; their shortcuts have no parameters.
RESNETS = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}
# Two 1 x 1 convolutions, 16 -> 32 and 32 -> 64, and the batch norms after them.
SHORTCUTS = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
# Zagoruyko and Komodakis (2016), table 5, and the 46.2M that TRADES and Rice et al. state for WRN-34-10.
WIDE_RESNETS = {28: 36.5, 34: 46.2}
MEAN, STD = (0.1, 0.5, 0.9), (0.2, 0.5, 2.0)


def on_meta(architecture):
    with torch.device("meta"):
        return build(architecture)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return make().eval()


def tiny(mean=CIFAR10_MEAN, std=CIFAR10_STD):
    """One network of each family, of the smallest depth."""
    return [
        seeded(lambda: ResNet(8, 10, mean=mean, std=std)),
        seeded(lambda: WideResNet(10, 1, 10, mean=mean, std=std)),
    ]


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_architecture_is_tested_here():
    tested = {f"resnet{depth}" for depth in RESNETS} | {f"wide_resnet{depth}_10" for depth in WIDE_RESNETS}
    assert set(ARCHITECTURES) == tested | {"resnet20-denoise", "resnet20-denoise-gaussian"}  # those in test_denoise.py


@pytest.mark.parametrize(("depth", "millions"), RESNETS.items())
def test_resnets_have_the_published_parameters(depth, millions):
    digits = 1 if depth == 110 else 2
    assert round((parameters(on_meta(f"resnet{depth}")) - SHORTCUTS) / 1e6, digits) == millions


@pytest.mark.parametrize(("depth", "millions"), WIDE_RESNETS.items())
def test_wide_resnets_have_the_published_parameters(depth, millions):
    assert round(parameters(on_meta(f"wide_resnet{depth}_10")) / 1e6, 1) == millions


@pytest.mark.parametrize("depth", RESNETS)
def test_a_resnet_has_as_many_layers_as_its_name_says(depth):
    layers = [
        module
        for module in on_meta(f"resnet{depth}").modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3))
    ]
    assert len(layers) == depth


@pytest.mark.parametrize("depth", WIDE_RESNETS)
def test_a_wide_resnet_has_as_many_layers_as_its_name_says(depth):
    # The name counts the three 1 x 1 shortcuts, but not the linear layer (their section 2: depth 6 n + 4).
    convolutions = [m for m in on_meta(f"wide_resnet{depth}_10").modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == depth
    assert sum(m.kernel_size == (1, 1) for m in convolutions) == 3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", first(1, [40, 32]))
def test_output_shape(architecture, size):
    assert on_meta(architecture)(torch.empty(5, 3, size, size, device="meta")).shape == (5, 10)


@pytest.mark.parametrize("widths", [(16, 32, 64), (160, 320, 640)])
def test_stages_halve_the_size_and_double_the_width(widths):
    model = on_meta("resnet20" if widths[0] == 16 else "wide_resnet28_10")
    shapes = []
    for stage in (model.layer1, model.layer2, model.layer3):
        stage.register_forward_hook(lambda _module, _args, output: shapes.append(tuple(output.shape)))
    model(torch.empty(1, 3, 32, 32, device="meta"))
    assert shapes == [(1, width, size, size) for width, size in zip(widths, (32, 16, 8), strict=True)]


def test_the_number_of_classes_and_channels_follows_the_arguments():
    model = build("resnet20", num_classes=7, mean=(0.5,), std=(0.25,)).eval()
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 7)


def test_an_unknown_architecture():
    with pytest.raises(
        ArgumentError, match=r"architecture: expected one of 9 names, got 'resnet21'; did you mean .*resnet20"
    ):
        build("resnet21")


def test_normalize_is_the_formula(images):
    pixels = images.double().numpy()
    expected = np.stack([(pixels[:, c] - MEAN[c]) / STD[c] for c in range(3)], axis=1)
    got = Normalize(MEAN, STD)(images)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_normalize_has_nothing_to_learn_and_travels_with_the_weights():
    layer = Normalize(MEAN, STD)
    assert list(layer.parameters()) == []
    assert sorted(layer.state_dict()) == ["mean", "std"]
    assert "mean=[0.1" in repr(layer)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 4, 8, 8), (3, 8, 8), (2, 8, 8, 3)])
def test_normalize_names_a_wrong_number_of_channels(shape):
    with pytest.raises(ArgumentError, match=r"inputs: expected images of shape \(N, 3, H, W\), got shape \("):
        Normalize(MEAN, STD)(torch.zeros(shape))


@pytest.mark.parametrize("family", [0, 1])
def test_normalisation_is_the_first_layer(family):
    model, inputs, seen = tiny()[family], torch.rand(2, 3, 32, 32), []
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_pre_hook(lambda module, args: seen.append((module, args[0])))
    model(inputs)
    assert isinstance(seen[0][0], Normalize)
    assert torch.equal(seen[0][1], inputs)


@pytest.mark.parametrize("family", [0, 1])
def test_a_network_normalises_once(family, images):
    normalising, plain = tiny(MEAN, STD)[family], tiny((0.0,) * 3, (1.0,) * 3)[family]
    by_hand = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(normalising(images), plain(by_hand))


@pytest.mark.parametrize("family", [0, 1])
def test_the_same_seed_gives_the_same_logits(family):
    inputs = torch.rand(3, 3, 32, 32)
    first, second = tiny()[family], tiny()[family]
    assert torch.equal(first(inputs), second(inputs))
    assert torch.equal(first(inputs), first(inputs))
    assert first(inputs).std() > 0


@pytest.mark.parametrize("family", [0, 1])
def test_images_of_a_batch_do_not_meet_in_eval_mode(family):
    model, inputs = tiny()[family].double(), torch.rand(4, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(model(inputs)[1:2], model(inputs[1:2]))


@pytest.mark.parametrize("family", [0, 1])
def test_every_parameter_takes_part(family):
    model = tiny()[family].train()
    model(torch.rand(4, 3, 32, 32)).square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert idle == []
