"""Parametric noise injection, PNI (He, Rakin and Fan, CVPR 2019): Gaussian noise of learned strength.

`x + alpha * std(x) * n` with n ~ N(0, I), fresh at each pass; x is a weight or an activation, no gradient goes through
std(x), and alpha is learned, from 0.25.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from smoothed.injection.layer import NoiseLayer
from smoothed.utils.checks import check_choice

Granularity = Literal["layer", "channel", "element"]
Site = Literal["input", "output"]


@dataclass(frozen=True)
class PNI:
    """The law `alpha * std * n`.

    An activation's std is taken image by image, where He et al. take the whole batch's: an image's noise, and so its
    vote, never depends on the images beside it.

    Args:
        granularity: one alpha a layer, a channel (a weight's output channel, an activation's channel), or an element
            (weights only: an activation's size is the image's).
        site: for activations, whether a layer's input (PNI-A-a) or output (PNI-A-b) is noisy.
        initial: where alpha starts.
    """

    granularity: Granularity = "layer"
    site: Site = "input"
    initial: float = 0.25

    def __post_init__(self) -> None:
        check_choice(self.granularity, ("layer", "channel", "element"), "granularity")
        check_choice(self.site, ("input", "output"), "site")

    def scaled(self, strength: float) -> "PNI":
        """The same law, starting at `strength` times the deviation."""
        return replace(self, initial=self.initial * strength)

    def for_weight(self, weight: Tensor, channel_dim: int = 0) -> NoiseLayer:
        """The noise of one weight, whose output channels run along `channel_dim`."""
        channels = [size if dim == channel_dim else 1 for dim, size in enumerate(weight.shape)]
        shapes = {"layer": (), "channel": channels, "element": weight.shape}
        return PNILayer(shapes[self.granularity], self.initial, per_row=False)

    def for_activation(self, channels: int, spatial: int) -> NoiseLayer:
        """The noise of an activation (N, channels, ...) with `spatial` more dimensions."""
        check_choice(self.granularity, ("layer", "channel"), "granularity of PNI on activations")
        shape = () if self.granularity == "layer" else (channels, *[1] * spatial)
        return PNILayer(shape, self.initial, per_row=True)


class PNILayer(NoiseLayer):
    """`alpha * std(x) * n`, alpha of any shape that broadcasts to x."""

    def __init__(self, shape: Sequence[int], initial: float, *, per_row: bool) -> None:
        super().__init__(per_row=per_row)
        self.alpha = nn.Parameter(torch.full(tuple(shape), initial))

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """See `NoiseLayer.scale_`."""
        self.alpha.mul_(factor)

    def linear_form(self, weight: Tensor) -> tuple[Tensor, None]:
        """See `NoiseLayer.linear_form`."""
        return (self.alpha * self.deviation(weight)).expand(weight.shape), None

    def noise(self, tensor: Tensor) -> Tensor:
        """See `NoiseLayer.noise`."""
        return self.alpha * (self.deviation(tensor) * self.normals(tensor.shape, tensor))
