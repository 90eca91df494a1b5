"""Normalisation as a network's first layer, so that everything else lives in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smoothed.errors import ArgumentError

CIFAR10_MEAN = (0.491, 0.482, 0.447)
CIFAR10_STD = (0.247, 0.243, 0.262)
CIFAR100_MEAN = (0.507, 0.487, 0.441)
CIFAR100_STD = (0.267, 0.256, 0.276)


class Normalize(nn.Module):
    """(inputs - mean) / std, channel by channel.

    Args:
        mean: one number a channel, in pixel units of [0, 1].
        std: likewise, positive.

    Raises:
        ArgumentError: another number of deviations than means, or one that is not positive; when called, images with
            another number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(0 < value < float("inf") for value in std):
            raise ArgumentError("std", f"{len(mean)} positive numbers, one a channel", tuple(std))
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (N, C, H, W) to the same shape."""
        if inputs.ndim != 4 or inputs.shape[1] != len(self.mean):
            expected = f"images of shape (N, {len(self.mean)}, H, W)"
            raise ArgumentError("inputs", expected, f"shape {tuple(inputs.shape)}")
        return (inputs - self.mean) / self.std

    def extra_repr(self) -> str:
        """The numbers, for printing."""
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"
