"""Gaussian noise of an absolute deviation on activations: random self-ensemble, and learned noise on the input.

`x + sigma * n` with n ~ N(0, I), drawn for each image. Random self-ensemble (RSE; Liu et al., ECCV 2018) has a fixed
sigma; section 3.1 of the paper learns it.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from smoothed.errors import ArgumentError
from smoothed.injection.layer import NoiseLayer
from smoothed.injection.pni import Site
from smoothed.utils.checks import check_choice, check_flag, check_not_negative


@dataclass(frozen=True)
class Additive:
    """Law of the noise `sigma * n` on activations, with one sigma per layer.

    Args:
        initial: initial sigma, at least 0, in units of the activation. The input of the first layer is the normalised
            image, so its unit is the paper's.
        learned: whether sigma is a parameter; if not, it is a buffer.
        site: whether the noise is on a layer's `input` or on its `output`.

    Raises:
        ArgumentError: `initial` is negative or not finite, or `site` is unknown.
    """

    initial: float = 0.1
    learned: bool = False
    site: Site = "input"

    def __post_init__(self) -> None:
        check_choice(self.site, ("input", "output"), "site")
        check_not_negative(self.initial, "initial")
        check_flag(self.learned, "learned")

    def scaled(self, strength: float) -> "Additive":
        """Return the same law with the initial deviation multiplied by `strength`."""
        return replace(self, initial=self.initial * strength)

    def for_weight(self, weight: Tensor, channel_dim: int = 0) -> NoiseLayer:
        """Raise `ArgumentError`: weights need noise relative to their own size."""
        del weight, channel_dim
        raise ArgumentError("weights", "PNI or CNI", "Additive", "pass it as activations=")

    def for_activation(self, channels: int, spatial: int) -> NoiseLayer:
        """Create the noise layer of an activation (N, channels, ...)."""
        del channels, spatial
        return AdditiveLayer(self.initial, learned=self.learned)


class AdditiveLayer(NoiseLayer):
    """Noise layer for `sigma * n`, where `sigma` is a scalar."""

    sigma: Tensor

    def __init__(self, initial: float, *, learned: bool) -> None:
        super().__init__(per_row=True)
        sigma = torch.tensor(float(initial))
        if learned:
            self.sigma = nn.Parameter(sigma)
        else:
            self.register_buffer("sigma", sigma)

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """See `NoiseLayer.scale_`."""
        self.sigma.mul_(factor)

    def noise(self, tensor: Tensor) -> Tensor:
        """See `NoiseLayer.noise`."""
        return self.sigma * self.normals(tensor.shape, tensor)
