"""A small convolutional network for those who need one of their own, whatever the images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

CHANNELS = (32, 64, 64)
PLACES = 4


def small_network(like: Tensor, num_classes: int, generator: torch.Generator | None = None) -> nn.Module:
    """A freshly initialised network from images of the shape of `like` to logits (N, K), on its device.

    Three convolutions, the later ones with a stride of 2, then the means over a grid of four by four places and a
    linear layer. There is no batch norm, for batches may be small. Weights are He's (2015), biases 0.

    Args:
        like: images in [0, 1], (N, C, H, W), of any size.
        num_classes: K.
        generator: of the weights, on the CPU; torch's default one when None.
    """
    layers = list[nn.Module]()
    channels = like.shape[1]
    for number, width in enumerate(CHANNELS):
        layers += [_blank(nn.Conv2d, channels, width, 3, stride=1 + (number > 0), padding=1), nn.ReLU()]
        channels = width
    network = nn.Sequential(
        Centred(),
        *layers,
        nn.AdaptiveAvgPool2d(PLACES),
        nn.Flatten(),
        _blank(nn.Linear, channels * PLACES**2, num_classes),
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            else:
                nn.init.kaiming_uniform_(parameter, nonlinearity="relu", generator=generator)
    return network.to(like)


class Centred(nn.Module):
    """Images in [0, 1] as numbers in [-1, 1]."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (N, C, H, W) to the same shape."""
        return 2 * inputs - 1


def _blank(layer: Callable[..., nn.Module], *sizes: int, **options: int) -> nn.Module:
    """A layer without values: torch would draw them from its default generator."""
    return nn.utils.skip_init(layer, *sizes, **options)
