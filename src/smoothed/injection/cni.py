"""Colored noise injection, CNI (Zheltonozhskii et al., 2020): Gaussian noise with learned low-rank covariance.

`x + sqrt(|std(x) * d|) * n + F z` with n ~ N(0, I) and z ~ N(0, I_r): covariance diag(|std(x) d|) + F F^T. The
variance d starts at 0.25^2, F at 0.01; both are learned, no gradient goes through std(x), F z is not scaled by it.
A weight has an entry of d and a row of F for each element. An activation has them for each channel, and its n and z
are drawn for every image and position.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from smoothed.errors import ArgumentError
from smoothed.injection.layer import NoiseLayer
from smoothed.injection.pni import Site
from smoothed.utils.checks import check_choice

# The root's slope is infinite at 0; below this variance the diagonal noise is held, and its gradient is 0.
SMALLEST_VARIANCE = 1e-12


@dataclass(frozen=True)
class CNI:
    """The law `sqrt(|std * d|) * n + F z`.

    Args:
        rank: r, the columns of F; 0 leaves the diagonal alone.
        site: for activations, whether a layer's input or its output is noisy.
        initial_variance: where d starts.
        initial_factor: where F starts.
    """

    rank: int = 5
    site: Site = "input"
    initial_variance: float = 0.25**2
    initial_factor: float = 0.01

    def __post_init__(self) -> None:
        check_choice(self.site, ("input", "output"), "site")
        if self.rank < 0:
            raise ArgumentError("rank", "an integer of at least 0", self.rank)

    def scaled(self, strength: float) -> "CNI":
        """The same law, starting at `strength` times the deviation."""
        return replace(
            self,
            initial_variance=self.initial_variance * strength**2,
            initial_factor=self.initial_factor * strength,
        )

    def for_weight(self, weight: Tensor, channel_dim: int = 0) -> NoiseLayer:
        """The noise of one weight, whose output channels run along `channel_dim`."""
        del channel_dim  # the law is by element
        return CNILayer(weight.shape, self, per_row=False)

    def for_activation(self, channels: int, spatial: int) -> NoiseLayer:
        """The noise of an activation (N, channels, ...) with `spatial` more dimensions."""
        return CNILayer((channels,), self, per_row=True, channel_dim=1 if spatial else -1)


class CNILayer(NoiseLayer):
    """Diagonal plus low-rank noise: `variance` (*shape,) is d, `factor` (elements of shape, r) is F.

    F is a matrix, so that `model.to(memory_format=torch.channels_last)`, which takes 4 or 5 dimensions, passes it by.
    """

    def __init__(self, shape: Sequence[int], law: CNI, *, per_row: bool, channel_dim: int = 1) -> None:
        super().__init__(per_row=per_row)
        self.channel_dim = channel_dim  # of activations: linear layers have their features last
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
        # One request serves n and z: both belong to one draw of the layer and must not repeat each other.
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
