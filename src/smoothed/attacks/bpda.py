"""Backward pass differentiable approximation (Athalye et al., ICML 2018, section 4.1)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from smoothed.errors import ArgumentError

Part = Callable[[Tensor], Tensor]


def identity(inputs: Tensor) -> Tensor:
    """The inputs themselves: the approximation of whatever roughly gives back what it gets."""
    return inputs


def bpda(function: Part, backward: Part = identity) -> nn.Module:
    """`function`, with the gradient of `backward` in the place of its own.

    Put it where the part was, as in `nn.Sequential(bpda(compress), network)`, and attack the whole: the network sees
    exactly what the defence shows it, and the gradient goes on as if the part were its approximation.

    Args:
        function: the part without a useful gradient: a rounding, a compression, a call out of torch. It gets tensors
            without gradient. A random one is drawn anew at each call.
        backward: differentiable, from the same inputs to outputs of the same shape as those of `function`. By default
            the identity, for parts whose output is close to their input.

    Returns:
        A module from the inputs of `function` to its outputs, in the mode of `function` if that is a module.

    Raises:
        ArgumentError: when called, outputs that are not float tensors, or an approximation of another shape.
    """
    return _Approximated(function, backward)


class _Approximated(nn.Module):
    def __init__(self, function: Part, backward: Part) -> None:
        super().__init__()
        self.function = function
        self.approximation = backward
        self.training = isinstance(function, nn.Module) and function.training

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            exact = self.function(inputs.detach())
        if not isinstance(exact, Tensor) or not exact.is_floating_point():
            got = exact.dtype if isinstance(exact, Tensor) else type(exact).__name__
            raise ArgumentError("function", "a float tensor as its output", got)
        if not torch.is_grad_enabled():
            return exact
        approximate = self.approximation(inputs)
        if approximate.shape != exact.shape:
            expected = f"outputs of shape {tuple(exact.shape)}, as of function"
            raise ArgumentError("backward", expected, f"shape {tuple(approximate.shape)}")
        return _Exchanged.apply(exact, approximate)  # pyright: ignore[reportReturnType] - torch's stubs say Any or nothing


class _Exchanged(torch.autograd.Function):
    """The first argument's value with the second's gradient; adding and subtracting would round the value."""

    @staticmethod
    def forward(ctx: Any, exact: Tensor, approximate: Tensor) -> Tensor:  # noqa: ANN401
        del ctx, approximate
        return exact.clone()  # which may be a view of the inputs

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[None, Tensor]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        del ctx
        return None, outer[0]
