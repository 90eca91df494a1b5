"""Precision of a training run: mixed precision unless a convolution gets wrong weight gradients in it."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.injection import noiseless
from smoothed.utils.devices import Precision, resolve_precision
from smoothed.utils.modes import eval_mode


def training_precision(
    requested: str, device: torch.device, network: nn.Module, images: Images
) -> tuple[Precision, tuple[str, ...]]:
    """Resolve the precision of a run: that of the device, but float32 where bf16 has wrong gradients.

    On CPUs, the weight gradient of a bf16 convolution whose input is smaller than its stride holds uninitialised
    numbers where the kernel meets only padding (oneDNN, as in torch 2.13). The forward pass and the gradient with
    respect to the input are right, so attacks and evaluations are not concerned.

    Args:
        requested: `auto`, `float32` or `bf16`.
        device: device on which the run computes.
        network: network to train, on any device. It runs once, in eval mode without noise.
        images: one image of the training set or more.

    Returns:
        The precision, and a sentence that says why if it is float32 for this reason.

    Raises:
        ArgumentError: `bf16` is requested for a network with such a convolution.
    """
    precision = resolve_precision(requested, device)
    if precision == "float32" or device.type != "cpu" or not _has_wrong_gradients(network, images):
        return precision, ()
    reason = "because a convolution has a larger stride than input, whose weight gradient CPUs get wrong in bf16"
    if requested == "auto":
        return "float32", (f"the network trains in float32, {reason}",)
    raise ArgumentError("precision", f"float32, {reason}", requested)


@torch.no_grad()
def _has_wrong_gradients(network: nn.Module, images: Images) -> bool:
    inputs, _ = next(images.first(1).batches(1))
    parameter = next(network.parameters(), None)
    inputs = inputs if parameter is None else inputs.to(parameter.device)
    convolutions = _Convolutions()
    failures = contextlib.suppress(RuntimeError, ValueError, IndexError)  # the run itself reports them
    with eval_mode(network), noiseless(network), torch.random.fork_rng(devices=[]), failures, convolutions:
        network(inputs)
    return convolutions.input_below_stride


class _Convolutions(TorchDispatchMode):
    """Observes all convolutions, of modules and of functions, and notes inputs that are smaller than the stride."""

    input_below_stride = False

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        if func is torch.ops.aten.convolution.default:
            inputs, stride = args[0], args[3]
            if any(size < step for size, step in zip(inputs.shape[2:], stride, strict=False)):
                self.input_below_stride = True
        return func(*args, **(kwargs or {}))
