"""The paper's networks by name. Normalisation is their first layer; inputs are images in [0, 1]."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from smoothed.models.normalize import CIFAR10_MEAN, CIFAR10_STD, CIFAR100_MEAN, CIFAR100_STD, Normalize
from smoothed.models.resnet import ResNet
from smoothed.models.wide_resnet import WideResNet
from smoothed.utils.checks import check_choice

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(ResNet, depth) for depth in (20, 32, 44, 56, 110)},
    **{f"wide_resnet{depth}_10": partial(WideResNet, depth, 10) for depth in (28, 34)},
}

__all__ = [
    "ARCHITECTURES",
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "CIFAR100_MEAN",
    "CIFAR100_STD",
    "Normalize",
    "ResNet",
    "WideResNet",
    "build",
]


def build(
    architecture: str,
    *,
    num_classes: int = 10,
    mean: Sequence[float] = CIFAR10_MEAN,
    std: Sequence[float] = CIFAR10_STD,
) -> nn.Module:
    """A freshly initialised network from images (N, C, H, W) in [0, 1] to logits (N, K).

    Args:
        architecture: a key of `ARCHITECTURES`: resnet20/32/44/56/110, wide_resnet28_10, wide_resnet34_10.
        num_classes: K.
        mean: of the data, one a channel, in pixel units of [0, 1].
        std: likewise.

    Raises:
        ArgumentError: an unknown architecture.
    """
    check_choice(architecture, ARCHITECTURES, "architecture")
    return ARCHITECTURES[architecture](num_classes=num_classes, mean=mean, std=std)
