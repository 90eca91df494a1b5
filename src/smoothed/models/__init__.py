"""Networks of the paper by name, and an adapter for other classifiers. Inputs of all are images in [0, 1]."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from smoothed.models.adapt import ModelAdapter
from smoothed.models.denoise import DenoisingResNet
from smoothed.models.normalize import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    CIFAR100_MEAN,
    CIFAR100_STD,
    Normalize,
    check_statistics,
)
from smoothed.models.resnet import ResNet
from smoothed.models.wide_resnet import WideResNet
from smoothed.utils.checks import check_choice, check_positive

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}": partial(ResNet, depth) for depth in (20, 32, 44, 56, 110)},
    **{f"wide_resnet{depth}_10": partial(WideResNet, depth, 10) for depth in (28, 34)},
    "resnet20-denoise": partial(DenoisingResNet, 20),
    "resnet20-denoise-gaussian": partial(DenoisingResNet, 20, weighting="gaussian"),
}

__all__ = [
    "ARCHITECTURES",
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "CIFAR100_MEAN",
    "CIFAR100_STD",
    "DenoisingResNet",
    "ModelAdapter",
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
    """Create an untrained network from images (N, C, H, W) in [0, 1] to logits (N, K).

    Args:
        architecture: key of `ARCHITECTURES`: resnet20/32/44/56/110, wide_resnet28_10 or wide_resnet34_10, or
            a ResNet-20 with feature denoising, resnet20-denoise or resnet20-denoise-gaussian.
        num_classes: number of classes K.
        mean: mean of the data for each of the C channels, in pixel units of [0, 1].
        std: standard deviation of the data for each of the C channels, in pixel units of [0, 1].

    Raises:
        ArgumentError: the architecture is unknown, or `std` is not positive or not as long as `mean`.
    """
    check_choice(architecture, ARCHITECTURES, "architecture")
    check_positive(num_classes, "num_classes")
    check_statistics(mean, std)
    return ARCHITECTURES[architecture](num_classes=num_classes, mean=mean, std=std)
