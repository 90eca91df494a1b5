"""Adversarial weight perturbation, AWP (Wu, Xia and Wang, NeurIPS 2020): gradients at weights of a higher loss.

Each layer's weight w moves by gamma |w| g / |g|, where g is the gradient of the loss with respect to w (their eq. 8
with one step). The training gradient is taken at the moved weights and applied to the original ones.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from smoothed.injection import noise_layers

# Avoids 0 / 0 in a layer whose gradient is 0.
TINY = 1e-20


def weights_to_perturb(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that AWP moves: parameters of at least two dimensions, without noise strengths."""
    strengths = {id(parameter) for layer in noise_layers(model) for parameter in layer.parameters()}
    return [parameter for parameter in model.parameters() if parameter.ndim > 1 and id(parameter) not in strengths]


@contextmanager
def perturb_weights(
    weights: Sequence[nn.Parameter],
    loss: Callable[[], Tensor],
    gamma: float,
    average: Callable[[Tensor], Tensor] = lambda gradient: gradient,
) -> Iterator[None]:
    """Move `weights` along the gradient of `loss` inside the block, and restore them exactly afterwards.

    Args:
        weights: weights to move, in place.
        loss: function that computes the loss, called once. The caller sets its noise and batch statistics.
        gamma: length of the move relative to each weight's norm, at least 0.
        average: function that averages a gradient over processes.
    """
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss(), list(weights), allow_unused=True)
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                averaged = average(gradient)
                weight.add_(averaged * (gamma * weight.norm() / (averaged.norm() + TINY)))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
