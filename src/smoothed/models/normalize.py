"""Normalisation as the first layer of a network, so that all inputs and radii are in pixel units of [0, 1]."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smoothed.errors import ArgumentError

CIFAR10_MEAN = (0.491, 0.482, 0.447)
CIFAR10_STD = (0.247, 0.243, 0.262)
CIFAR100_MEAN = (0.507, 0.487, 0.441)
CIFAR100_STD = (0.267, 0.256, 0.276)


def check_statistics(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise `ArgumentError` unless `mean` and `std` are finite numbers, one per channel, and `std` is above 0."""
    for name, values in (("mean", mean), ("std", std)):
        try:
            is_right = bool(len(values)) and all(math.isfinite(value) for value in values)
        except TypeError:
            is_right = False
        if not is_right:
            raise ArgumentError(name, "finite numbers, one per channel", repr(values))
    if len(mean) != len(std) or not all(value > 0 for value in std):
        raise ArgumentError("std", f"{len(mean)} positive numbers, one per channel", tuple(std))


class Normalize(nn.Module):
    """Layer that computes (inputs - mean) / std for each channel.

    Args:
        mean: mean of each of the C channels, in pixel units of [0, 1].
        std: standard deviation of each of the C channels, in pixel units of [0, 1], positive.

    Raises:
        ArgumentError: `std` is not as long as `mean` or not positive; in a call, the images do not have C channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        check_statistics(mean, std)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise images (N, C, H, W) in [0, 1]."""
        if inputs.ndim != 4 or inputs.shape[1] != len(self.mean):
            expected = f"images of shape (N, {len(self.mean)}, H, W)"
            raise ArgumentError("inputs", expected, f"shape {tuple(inputs.shape)}")
        return (inputs - self.mean) / self.std

    def extra_repr(self) -> str:
        """Return mean and deviation for printing."""
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


def normalization_std(model: object) -> tuple[float, ...] | None:
    """Standard deviation of each channel by which a model's `normalize` layer divides; None if it has no such layer."""
    normalize = getattr(model, "normalize", None)
    return tuple(normalize.std.flatten().tolist()) if isinstance(normalize, Normalize) else None
