"""Parametric noise injection, PNI (He, Rakin and Fan, CVPR 2019): Gaussian noise of learned strength.

`x + alpha * std(x) * n` with n ~ N(0, I), fresh at each pass, where x is a weight or an activation. The strength alpha
(initially 0.25) is learned; no gradient flows through std(x).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from smoothed.injection.layer import NoiseLayer
from smoothed.utils.checks import check_choice, check_not_negative

Granularity = Literal["layer", "channel", "element"]
Site = Literal["input", "output"]


@dataclass(frozen=True)
class PNI:
    """Law of the noise `alpha * std * n`.

    The std of an activation is computed for each image, whereas He et al. compute it over the batch. The noise of an
    image, and therefore its vote, does not depend on the other images of its batch.

    Args:
        granularity: one alpha per `layer`, per `channel` (output channel of a weight, channel of an activation), or per
            `element` (weights only, because the number of elements of an activation depends on the image size).
        site: for activations, whether the noise is on a layer's `input` (PNI-A-a) or on its `output` (PNI-A-b).
        initial: initial value of alpha.

    Raises:
        ArgumentError: `granularity` or `site` is unknown.
    """

    granularity: Granularity = "layer"
    site: Site = "input"
    initial: float = 0.25

    def __post_init__(self) -> None:
        check_choice(self.granularity, ("layer", "channel", "element"), "granularity")
        check_choice(self.site, ("input", "output"), "site")
        check_not_negative(self.initial, "initial")

    def scaled(self, strength: float) -> "PNI":
        """Return the same law with the initial deviation multiplied by `strength`."""
        return replace(self, initial=self.initial * strength)

    def for_weight(self, weight: Tensor, channel_dim: int = 0) -> NoiseLayer:
        """Create the noise layer of a weight whose output channels run along `channel_dim`."""
        channels = [size if dim == channel_dim else 1 for dim, size in enumerate(weight.shape)]
        shapes = {"layer": (), "channel": channels, "element": weight.shape}
        return PNILayer(shapes[self.granularity], self.initial, per_row=False)

    def for_activation(self, channels: int, spatial: int) -> NoiseLayer:
        """Create the noise layer of an activation (N, channels, ...) with `spatial` further dimensions.

        Raises:
            ArgumentError: the granularity is `element`.
        """
        check_choice(self.granularity, ("layer", "channel"), "granularity of PNI on activations")
        shape = () if self.granularity == "layer" else (channels, *[1] * spatial)
        return PNILayer(shape, self.initial, per_row=True)


class PNILayer(NoiseLayer):
    """Noise layer for `alpha * std(x) * n`, where alpha has any shape that broadcasts to x."""

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
