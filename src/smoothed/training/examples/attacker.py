"""The attacker network of learning to learn to defend (Jiang et al., AISTATS 2021)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from smoothed.rng.seeds import mix
from smoothed.training.streams import TrainingStream

HIDDEN_CHANNELS = 16
"""Channels of the first and the last hidden layer; the block between them has twice as many."""


class Attacker(nn.Module):
    """Map an image and the scaled gradient of its loss to a perturbation in [-1, 1], through tanh.

    A convolution, two residual blocks of 3 x 3 convolutions at full resolution, and a convolution. The published
    attackers have these parts with 64 channels and up to four blocks, for a Wide-ResNet. This one is smaller, in
    proportion to a ResNet-20: its forward pass costs about half of the ResNet-20's. Group norms replace the published
    batch norms, so that the perturbation of an image does not depend on its batch.

    Args:
        channels: number of channels of the images.
        width: number of channels of the first hidden layer.
    """

    def __init__(self, channels: int, width: int = HIDDEN_CHANNELS) -> None:
        super().__init__()
        self.first = nn.Conv2d(2 * channels, width, 3, padding=1)
        self.blocks = nn.Sequential(_Block(width, 2 * width), _Block(2 * width, width))
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(
        self, images: Float[Tensor, "n c h w"], gradients: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """Return perturbations as shares of the radius, in [-1, 1]."""
        features = self.blocks(self.first(torch.cat([images, gradients], 1)).relu())
        return self.last(_normalised(features)).tanh()


class _Block(nn.Module):
    """Two convolutions after norm and ReLU, with a 1 x 1 convolution as the shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.first(_normalised(features).relu())
        return self.second(_normalised(hidden).relu()) + self.shortcut(features)


def _normalised(features: Tensor) -> Tensor:
    """Features with mean 0 and variance 1 over all elements of an image."""
    return functional.group_norm(features, 1)


def new_attacker(channels: int, seed: int, like: Tensor) -> Attacker:
    """Create the attacker of a run with this seed for images of this number of channels, on the device of `like`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(seed, TrainingStream.INITIAL_ATTACKER))
        return Attacker(channels).to(like.device, like.dtype)
