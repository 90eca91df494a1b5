"""Networks to fuse, and what it means that a fused one is the same."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from smoothed.injection import (
    CNI,
    PNI,
    GaussianPosterior,
    VariationalDropout,
    inject,
    inject_preset,
    noise_from,
    noise_layers,
)
from smoothed.models import CIFAR10_MEAN, CIFAR10_STD, ResNet, WideResNet
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Keyed


def learned(model):
    """`model` in float64 and eval mode, with statistics, weights and strengths as no initialisation leaves them."""
    generator = seeded(7)
    model.double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.5, generator=generator)
                module.running_var.uniform_(0.3, 3, generator=generator)
            if isinstance(module, _BatchNorm) and module.affine:
                for parameter, mean in zip(module.parameters(recurse=False), (1, 0), strict=False):
                    parameter.normal_(mean, 0.5, generator=generator)
        for layer in noise_layers(model):
            for parameter in layer.parameters():
                parameter.mul_(torch.empty_like(parameter).uniform_(-2, 2, generator=generator))
    return model


def pulled_back(model, inputs):
    """Outputs, and the input gradient of a sum of them with unequal factors."""
    inputs = inputs.detach().requires_grad_()
    outputs = model(inputs)
    factors = torch.linspace(-1, 2, outputs.numel(), dtype=outputs.dtype).view_as(outputs)
    return outputs.detach(), torch.autograd.grad((outputs * factors).sum(), inputs)[0]


def assert_same(fused, inputs, *, seed=5, plain=None, **tolerance):
    """The same outputs and input gradients as the network's own, under the same keyed noise."""
    results = []
    for model in (fused, fused.model if plain is None else plain):
        with noise_from(model, Keyed(seed)):
            results.append(pulled_back(model, inputs))
    for got, expected in zip(*results, strict=True):
        assert expected.abs().max() > 1e-6
        assert_close(got, expected, **(tolerance or {"rtol": 1e-9, "atol": 1e-9}))


NETWORKS = {
    "resnet": lambda: ResNet(8, 4, CIFAR10_MEAN, CIFAR10_STD),
    "wide": lambda: WideResNet(10, 1, 4, CIFAR10_MEAN, CIFAR10_STD),
    "biases": lambda: nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.BatchNorm2d(5, affine=False),
        nn.ReLU(),
        nn.Conv2d(5, 6, 3),
        nn.BatchNorm2d(6, eps=0.1),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3),
        nn.Flatten(),
        nn.Linear(16, 4),
    ),
}


def names(model):
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def mixed(model):
    """Of every four layers: rank 2, channels, no noise, rank 4."""
    layers = names(model)
    inject(model, weights=CNI(rank=2), layers=layers[::4])
    inject(model, weights=PNI("channel"), layers=layers[1::4])
    inject(model, weights=CNI(rank=4), layers=layers[3::4])
    return model


INJECTIONS = {
    "none": lambda model: None,  # noqa: ARG005
    "pni-layer": lambda model: inject(model, weights=PNI("layer")),
    "pni-channel": lambda model: inject(model, weights=PNI("channel")),
    "pni-element": lambda model: inject(model, weights=PNI("element")),
    "cni-0": lambda model: inject(model, weights=CNI(rank=0)),
    "cni-5": lambda model: inject(model, weights=CNI(rank=5)),
    "vdo": lambda model: inject(model, weights=VariationalDropout()),
    "vdo-outputs": lambda model: inject(model, activations=VariationalDropout(), layers=names(model)[::2]),
    "bnn": lambda model: inject(model, weights=GaussianPosterior()),
    "cni-w": lambda model: inject_preset(model, "cni-w"),
    "mixed": mixed,
    "mixed-with-activations": lambda model: inject(
        mixed(model), activations=PNI(site="output"), layers=names(model)[::2]
    ),
    "input": lambda model: inject_preset(model, "cni-w+input"),
    "randdisc": lambda model: inject_preset(model, "cni-w+randdisc"),
}
