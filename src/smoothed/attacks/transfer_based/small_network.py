"""A small convolutional network for images of any size, the default substitute of a model."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

WIDTHS = (32, 64, 64)
"""Channels of the outputs of the convolutions."""
POOLED_SIZE = 4


def small_network(like: Tensor, num_classes: int, generator: torch.Generator | None = None) -> nn.Module:
    """Return a newly initialised network from images of the shape of `like` to logits (N, K), on the same device.

    It has three convolutions, of which the last two have stride 2, average pooling to a grid of four by four, and a
    linear layer. It has no batch norm, since batches may be small. Weights have He's initialisation (2015); biases are
    0.

    Args:
        like: images in [0, 1], (N, C, H, W), of any size, which give the number of channels, the device and the dtype.
        num_classes: number of classes, K.
        generator: source of the initial weights, on the CPU; None for torch's default generator.
    """
    layers = list[nn.Module]()
    channels = like.shape[1]
    for index, width in enumerate(WIDTHS):
        layers += [_uninitialised(nn.Conv2d, channels, width, 3, stride=1 + (index > 0), padding=1), nn.ReLU()]
        channels = width
    network = nn.Sequential(
        Centred(),
        *layers,
        nn.AdaptiveAvgPool2d(POOLED_SIZE),
        nn.Flatten(),
        _uninitialised(nn.Linear, channels * POOLED_SIZE**2, num_classes),
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            else:
                nn.init.kaiming_uniform_(parameter, nonlinearity="relu", generator=generator)
    return network.to(like)


class Centred(nn.Module):
    """Map images from [0, 1] to [-1, 1]."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return images of the same shape, (N, C, H, W), in [-1, 1]."""
        return 2 * inputs - 1


def _uninitialised(layer: Callable[..., nn.Module], *sizes: int, **options: int) -> nn.Module:
    """Return a layer with uninitialised weights: torch's initialisation would use its default generator."""
    return nn.utils.skip_init(layer, *sizes, **options)
