"""Adversarial weight perturbation, AWP (Wu, Xia and Wang, NeurIPS 2020): train where the loss is worst nearby.

Each layer's weight w moves by gamma |w| g / |g|, g the gradient of the loss there (their eq. 8 with one step); the
gradient that trains is taken at the moved weights, and the step starts from the old ones.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from smoothed.injection import noise_layers

# Keeps 0 / 0 out of a layer without gradient.
TINY = 1e-20


def perturbed_weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights that AWP moves: those of more than one dimension, and no noise strengths."""
    strengths = {id(parameter) for layer in noise_layers(model) for parameter in layer.parameters()}
    return [parameter for parameter in model.parameters() if parameter.ndim > 1 and id(parameter) not in strengths]


@contextmanager
def perturbed(
    weights: Sequence[nn.Parameter],
    loss: Callable[[], Tensor],
    gamma: float,
    average: Callable[[Tensor], Tensor] = lambda gradient: gradient,
) -> Iterator[None]:
    """Move `weights` up the slope of `loss` inside the block; afterwards they are what they were, bit by bit.

    Args:
        weights: moved in place.
        loss: called once, with gradients; its own noise and batch statistics are its caller's.
        gamma: how far, relative to each weight's norm; at least 0.
        average: of a gradient over processes.
    """
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss(), list(weights), allow_unused=True)
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                slope = average(gradient)
                weight.add_(slope * (gamma * weight.norm() / (slope.norm() + TINY)))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
