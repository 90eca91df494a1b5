"""Backward pass differentiable approximation (Athalye et al., ICML 2018, section 4.1)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_callable

TensorFunction = Callable[[Tensor], Tensor]


def identity(inputs: Tensor) -> Tensor:
    """Return the inputs: the default gradient approximation, for functions that nearly preserve their input."""
    return inputs


def bpda(function: TensorFunction, backward: TensorFunction = identity) -> nn.Module:
    """Wrap `function` so that its backward pass uses the gradient of `backward`.

    Put the wrapped function in the place of the original, as in `nn.Sequential(bpda(compress), network)`, and attack
    the result. The forward pass is exact; the gradient is computed as if `function` were `backward`.

    Args:
        function: function without a useful gradient, such as rounding, compression or code outside torch. It receives
            tensors without gradient. A random function is evaluated afresh at each call.
        backward: differentiable approximation of `function`, with the same input and output shapes. The default is the
            identity.

    Returns:
        A module from the inputs of `function` to its outputs. It starts in the training mode of `function` if that is a
        module, and otherwise in eval mode.

    Raises:
        ArgumentError: an argument cannot be called; at a call, `function` does not return a float tensor, or `backward`
            returns another shape.
    """
    check_callable(function, "function")
    check_callable(backward, "backward")
    return _BPDA(function, backward)


class _BPDA(nn.Module):
    def __init__(self, function: TensorFunction, backward: TensorFunction) -> None:
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
        if not isinstance(approximate, Tensor) or approximate.shape != exact.shape:
            expected = f"outputs of shape {tuple(exact.shape)}, the same as function's"
            is_tensor = isinstance(approximate, Tensor)
            got = f"shape {tuple(approximate.shape)}" if is_tensor else type(approximate).__name__
            raise ArgumentError("backward", expected, got)
        return _ReplaceGradient.apply(exact, approximate)  # pyright: ignore[reportReturnType] - torch's stubs say Any or nothing


class _ReplaceGradient(torch.autograd.Function):
    """The value of the first argument with the gradient of the second.

    The usual `approximate + (exact - approximate).detach()` would round the value.
    """

    @staticmethod
    def forward(ctx: Any, exact: Tensor, approximate: Tensor) -> Tensor:  # noqa: ANN401
        del ctx, approximate
        return exact.clone()  # a copy, since `exact` may be a view of the inputs

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[None, Tensor]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        del ctx
        return None, outer[0]
