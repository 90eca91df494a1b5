"""Every named injection: which layers it changes, with what strength, and that a network learns through it."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from smoothed.errors import ArgumentError
from smoothed.injection import CNI, PNI, PRESETS, Additive, frozen, inject, inject_preset, noise_layers
from smoothed.models import build

# ResNet-20: one convolution, three stages of three blocks of two, two shortcuts; one linear layer.
CONVOLUTIONS, LINEAR = 1 + 18 + 2, 1
CHANGES = {
    "none": 0,
    "rse": CONVOLUTIONS,
    "cni-w+input": CONVOLUTIONS + LINEAR + 1,
    "randdisc": 1,
    "cni-w+randdisc": CONVOLUTIONS + LINEAR + 1,
    "cni-w+pni-a": 2 * (CONVOLUTIONS + LINEAR),
}


@pytest.fixture(autouse=True)
def seeded_globally():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def places(injection):
    return Counter((change.target, change.law) for change in injection.changes)


@pytest.mark.parametrize("name", PRESETS)
def test_finite_forward_and_backward(name, generator):
    model = build("resnet20")
    injection = inject_preset(model, name)
    loss = model(torch.rand(4, 3, 16, 16, generator=generator)).square().sum()
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    learned = [parameter for layer in noise_layers(model) for parameter in layer.parameters()]
    assert all(parameter.grad.any() for parameter in learned)
    assert len(injection.changes) == CHANGES.get(name, CONVOLUTIONS + LINEAR)
    assert sum(change.parameters for change in injection.changes) == sum(parameter.numel() for parameter in learned)


def test_cni_w_is_the_papers():
    injection = inject_preset(build("resnet20"), "cni-w")
    assert places(injection) == {("weight", CNI(rank=5)): 21, ("weight", PNI("element")): 1}
    assert injection.changes[0].law == CNI(rank=5)  # the first convolution too
    assert injection.changes[-1].law == PNI("element")


def test_cni_w_and_noise_on_every_layers_input():
    injection = inject_preset(build("resnet20"), "cni-w+pni-a")
    assert places(injection) == {
        ("weight", CNI(rank=5)): 21,
        ("weight", PNI("element")): 1,
        ("activation", PNI("layer", site="input")): 22,
    }


def test_cni_w_and_a_learned_strength_at_the_input():
    """Section 3.1 and 5 of the paper: 0.24 in units of the normalised image, before the first layer alone."""
    model = build("resnet20")
    injection = inject_preset(model, "cni-w+input")
    assert places(injection) == {
        ("weight", CNI(rank=5)): 21,
        ("weight", PNI("element")): 1,
        ("activation", Additive(0.24, learned=True)): 1,
    }
    (change,) = (change for change in injection.changes if change.target == "activation")
    assert change.layer == "conv1"
    assert change.parameters == 1
    assert isinstance(model.conv1.activation_noise.sigma, nn.Parameter)


def test_rse_is_its_papers():
    """Liu et al., section 4: before every convolution, 0.2 at the first and 0.1 inside; nothing is learned."""
    model = build("resnet20")
    injection = inject_preset(model, "rse")
    assert places(injection) == {("activation", Additive(0.2)): 1, ("activation", Additive(0.1)): 20}
    assert injection.changes[0].layer == "conv1"
    assert injection.changes[0].law == Additive(0.2)
    assert not list(noise_layers(model)[0].parameters())
    seen = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(lambda _, args, name=name: seen.setdefault(name, args[0]))
    model.eval()(inputs := torch.rand(200, 3, 8, 8))
    assert_close((seen["conv1"] - model.normalize(inputs)).std().item(), 0.2, rtol=0.02, atol=0)
    # Before the others lies a ReLU: what is below zero is noise.
    for name in ("layer1.0.conv1", "layer3.2.conv2"):
        below = seen[name][seen[name] < 0]
        assert abs(below.mean().item() / -0.1) < 0.9
        assert 0.03 < below.square().mean().sqrt().item() < 0.11


@pytest.mark.parametrize(
    "name", ["pni-w", "cni-w", "vdo-w", "vdo-w-layer", "bnn-w", "pni-a-a", "cni-a", "rse", "cni-w+input", "cni-w+pni-a"]
)
def test_strength_scales_the_noise(name, network, images):
    """Every noise layer under one key: twice the strength is twice the noise."""
    noises = []
    for strength in (1.0, 2.0):
        twin = copy.deepcopy(network)
        injection = inject_preset(twin, name, strength)
        with frozen(twin):
            noises.append([_noise(twin.get_submodule(change.layer), change.target) for change in injection.changes])
    for weaker, stronger in zip(*noises, strict=True):
        assert_close(stronger, 2 * weaker, rtol=1e-4, atol=1e-5)
        assert weaker.abs().max() > 1e-3
    del images


def _noise(layer, target):
    """One draw of the noise of a layer's weight or of its activations."""
    if target == "weight":
        return layer.weight - layer.parametrizations.weight.original
    like = torch.linspace(-1, 1, 2 * layer.weight[0].numel()).view(2, *layer.weight[0].shape)
    return layer.activation_noise(like) - like


def test_strength_zero_is_no_noise(network, images):
    clean = network(images)
    inject_preset(network, "cni-w", 0.0)
    assert_close(network(images), clean, rtol=1e-4, atol=1e-4)  # variances are held at 1e-12


@pytest.mark.parametrize("name", PRESETS)
def test_undo(name, network, images):
    clean, names = network(images), list(network.state_dict())
    inject_preset(network, name).undo()
    assert list(network.state_dict()) == names
    assert torch.equal(network(images), clean)


def test_unknown_name(network):
    with pytest.raises(ArgumentError, match=r"injection: expected one of \d+ names, got 'cni-ww'; did you mean cni-w"):
        inject_preset(network, "cni-ww")


def test_a_network_of_one_convolution(images):
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 4))
    injection = inject_preset(network, "rse")
    assert places(injection) == {("activation", Additive(0.2)): 1}
    network(images)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "none"])
def test_nothing_to_change(name):
    with pytest.raises(ArgumentError, match="model: expected at least one convolution or linear layer"):
        inject_preset(nn.Sequential(nn.Flatten(), nn.ReLU()), name)


@pytest.mark.parametrize("name", ["cni-w+input", "cni-w+pni-a", "rse"])
def test_a_part_that_can_not_be_put_in_leaves_nothing_of_the_others(name, network):
    inject(network, activations=PNI(), layers=["0"] if name != "rse" else ["4"])
    before = list(network.state_dict())
    with pytest.raises(ArgumentError, match="layers without noise"):
        inject_preset(network, name)
    assert list(network.state_dict()) == before
    assert len(noise_layers(network)) == 1
