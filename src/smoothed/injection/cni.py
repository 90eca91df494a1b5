"""Colored noise injection, CNI (Zheltonozhskii et al., 2020): Gaussian noise with learned low-rank covariance.

`x + sqrt(|std(x) * d|) * n + F z` with n ~ N(0, I) and z ~ N(0, I_r); the covariance is diag(|std(x) d|) + F F^T.
The variance d (initially 0.25^2) and the factor F (initially 0.01) are learned. No gradient flows through std(x), and
F z is not scaled by std(x). A weight has one entry of d and one row of F per element. An activation has them per
channel; its n and z are drawn for each image and position.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from smoothed.errors import ArgumentError
from smoothed.injection.layer import SMALLEST_VARIANCE, NoiseLayer
from smoothed.injection.pni import Site
from smoothed.utils.checks import check_choice, check_not_negative


@dataclass(frozen=True)
class CNI:
    """Law of the noise `sqrt(|std * d|) * n + F z`.

    Args:
        rank: number r of columns of F, at least 0; 0 means diagonal noise only.
        site: for activations, whether the noise is on a layer's `input` or on its `output`.
        initial_variance: initial value of all entries of d.
        initial_factor: initial value of all entries of F.

    Raises:
        ArgumentError: `rank` is negative or `site` is unknown.
    """

    rank: int = 5
    site: Site = "input"
    initial_variance: float = 0.25**2
    initial_factor: float = 0.01

    def __post_init__(self) -> None:
        check_choice(self.site, ("input", "output"), "site")
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 0:
            raise ArgumentError("rank", "an integer of at least 0", repr(self.rank))
        check_not_negative(self.initial_variance, "initial_variance")
        check_not_negative(self.initial_factor, "initial_factor")

    def scaled(self, strength: float) -> "CNI":
        """Return the same law with the initial deviation multiplied by `strength`."""
        return replace(
            self,
            initial_variance=self.initial_variance * strength**2,
            initial_factor=self.initial_factor * strength,
        )

    def for_weight(self, weight: Tensor, channel_dim: int = 0) -> NoiseLayer:
        """Create the noise layer of a weight whose output channels run along `channel_dim`."""
        del channel_dim  # every element has its own strength
        return CNILayer(weight.shape, self, per_row=False)

    def for_activation(self, channels: int, spatial: int) -> NoiseLayer:
        """Create the noise layer of an activation (N, channels, ...) with `spatial` further dimensions."""
        return CNILayer((channels,), self, per_row=True, channel_dim=1 if spatial else -1)


class CNILayer(NoiseLayer):
    """Noise layer for diagonal plus low-rank noise: `variance` (*shape,) is d, `factor` (elements of shape, r) is F.

    F has two dimensions, because `model.to(memory_format=torch.channels_last)` changes parameters with four or five.
    """

    def __init__(self, shape: Sequence[int], law: CNI, *, per_row: bool, channel_dim: int = 1) -> None:
        super().__init__(per_row=per_row)
        self.channel_dim = channel_dim  # channels of an activation; linear layers have them last
        self.variance = nn.Parameter(torch.full(tuple(shape), law.initial_variance))
        self.factor = nn.Parameter(torch.full((math.prod(shape), law.rank), law.initial_factor))

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """See `NoiseLayer.scale_`."""
        self.variance.mul_(factor**2)
        self.factor.mul_(factor)

    def linear_form(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `NoiseLayer.linear_form`."""
        return self._scale(weight, self.variance), self.factor if self.factor.shape[-1] else None

    def noise(self, tensor: Tensor) -> Tensor:
        """See `NoiseLayer.noise`."""
        factor, rank = self.factor, self.factor.shape[-1]
        # n and z come from one request, because two requests for the same draw and layer return the same numbers.
        if not self.per_row:
            size = tensor.numel()
            normals, latent = self.normals((size + rank,), factor).split([size, rank])
            colored = (factor @ latent).view(tensor.shape)
            return self._scale(tensor, self.variance) * normals.view(tensor.shape) + colored
        tensor = tensor.movedim(self.channel_dim, 1)
        rows, channels, *spatial = tensor.shape
        normals, latent = self.normals((rows, channels + rank, *spatial), factor).split([channels, rank], dim=1)
        colored = torch.einsum("cr,nr...->nc...", factor, latent)
        noise = self._scale(tensor, self.variance.view(-1, *[1] * len(spatial))) * normals + colored
        return noise.movedim(1, self.channel_dim)

    def _scale(self, tensor: Tensor, variance: Tensor) -> Tensor:
        return (self.deviation(tensor) * variance).abs().clamp_min(SMALLEST_VARIANCE).sqrt()
