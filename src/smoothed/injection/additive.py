"""Gaussian noise of an absolute deviation on activations: RSE's layers, and a learned strength at the network's input.

`x + sigma * n` with n ~ N(0, I), drawn for every image. Random self-ensemble (Liu et al., ECCV 2018) keeps sigma fixed;
the paper's section 3.1 lets it be learned.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from smoothed.errors import ArgumentError
from smoothed.injection.layer import NoiseLayer
from smoothed.injection.pni import Site
from smoothed.utils.checks import check_choice, check_not_negative


@dataclass(frozen=True)
class Additive:
    """The law `sigma * n`, for activations.

    Args:
        initial: where sigma starts, in the units of the activation (at the first layer, those of the normalised image,
            which are the paper's).
        learned: whether sigma is a parameter; it is a buffer otherwise.
        site: whether a layer's input or its output is noisy.
    """

    initial: float = 0.1
    learned: bool = False
    site: Site = "input"

    def __post_init__(self) -> None:
        check_choice(self.site, ("input", "output"), "site")
        check_not_negative(self.initial, "initial")

    def scaled(self, strength: float) -> "Additive":
        """The same law, starting at `strength` times the deviation."""
        return replace(self, initial=self.initial * strength)

    def for_weight(self, weight: Tensor, channel_dim: int = 0) -> NoiseLayer:
        """Refused: an absolute deviation means nothing for a weight."""
        del weight, channel_dim
        raise ArgumentError("weights", "PNI or CNI", "Additive", "use it for activations")

    def for_activation(self, channels: int, spatial: int) -> NoiseLayer:
        """The noise of an activation (N, channels, ...)."""
        del channels, spatial
        return AdditiveLayer(self.initial, learned=self.learned)


class AdditiveLayer(NoiseLayer):
    """`sigma * n`, sigma a number."""

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
