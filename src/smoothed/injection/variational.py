"""Variational dropout (Kingma, Salimans and Welling, NeurIPS 2015): multiplicative Gaussian noise of learned strength.

`w * (1 + sqrt(alpha) * n)` with n ~ N(0, I) is a draw of the posterior q(w) = N(w, alpha w^2). The training loss adds
the divergence of this posterior from the log-uniform prior; its only unknown part depends on alpha alone and is
approximated by a cubic polynomial. log(alpha) is learned by gradients.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothed.errors import ArgumentError
from smoothed.injection.layer import NoiseLayer
from smoothed.injection.pni import Granularity, Site
from smoothed.injection.preactivation import PreactivationNoise
from smoothed.utils.checks import check_choice, check_not_negative

COEFFICIENTS = 1.16145124, -1.50204118, 0.58629921
"""Published coefficients of alpha, alpha^2 and alpha^3 in the approximation, which holds for 0 < alpha <= 1."""

# log(alpha) of a noise of strength 0: its deviation, exp(-100), vanishes beside 1, and the divergence stays finite.
SMALLEST_LOG_ALPHA = -200.0


@dataclass(frozen=True)
class VariationalDropout:
    """Law of the noise `sqrt(alpha) * w * n` on weights, drawn for the weights or at the outputs of their layers.

    As `weights=` of `inject`, the noise is drawn for the weights and shared by the batch, as that of `PNI` and `CNI`.
    As `activations=`, it is drawn for each image at the outputs (the paper's local reparametrisation, see
    `injection/preactivation.py`), whose variance is that of the outputs under noisy weights; the layer must have no
    other noise on its weight. The paper leaves the initial alpha open; the default gives the noise a quarter of each
    weight, as the published PNI has a quarter of the weights' deviation.

    Args:
        granularity: one alpha per `layer`, per `channel` (output channel), or per `element` of the weight.
        initial_alpha: initial value of alpha, the variance of the noise relative to the squared weight, at least 0.
            Training keeps alpha at 1 or less, as the paper does.

    Raises:
        ArgumentError: `granularity` is unknown, or `initial_alpha` is negative or not finite.
    """

    granularity: Granularity = "element"
    initial_alpha: float = 0.25**2
    site: ClassVar[Site] = "input"

    def __post_init__(self) -> None:
        check_choice(self.granularity, ("layer", "channel", "element"), "granularity")
        check_not_negative(self.initial_alpha, "initial_alpha")

    def scaled(self, strength: float) -> "VariationalDropout":
        """Return the same law with the initial deviation multiplied by `strength`."""
        return replace(self, initial_alpha=self.initial_alpha * strength**2)

    def for_weight(self, weight: Tensor, channel_dim: int = 0) -> NoiseLayer:
        """Create the noise layer of a weight whose output channels run along `channel_dim`."""
        return VariationalDropoutLayer(self._shape(weight, channel_dim), self.initial_alpha, weight.numel())

    def for_outputs(self, weight: Tensor, channel_dim: int = 0) -> NoiseLayer:
        """Create the noise layer at the outputs of a layer with this weight."""
        shape = self._shape(weight, channel_dim)
        return VariationalDropoutOutputs(shape, self.initial_alpha, weight.numel(), per_row=True)

    def for_activation(self, channels: int, spatial: int) -> NoiseLayer:
        """Raise `ArgumentError`: the noise at the outputs of a layer is one of its weight."""
        del channels, spatial
        raise ArgumentError("layers", "convolutions or linear layers with VariationalDropout", "another layer")

    def _shape(self, weight: Tensor, channel_dim: int) -> Sequence[int]:
        """The shape of alpha."""
        channels = [size if dim == channel_dim else 1 for dim, size in enumerate(weight.shape)]
        shapes: dict[str, Sequence[int]] = {"layer": (), "channel": channels, "element": weight.shape}
        return shapes[self.granularity]


class VariationalDropoutLayer(NoiseLayer):
    """Noise layer for `sqrt(alpha) * w * n`, where `log_alpha` has any shape that broadcasts to the weight."""

    decays = False

    def __init__(self, shape: Sequence[int], initial_alpha: float, weights: int, *, per_row: bool = False) -> None:
        super().__init__(per_row=per_row)
        start = math.log(initial_alpha) if initial_alpha > 0 else SMALLEST_LOG_ALPHA
        self.log_alpha = nn.Parameter(torch.full(tuple(shape), max(start, SMALLEST_LOG_ALPHA)))
        self.weights_per_alpha = weights / max(1, self.log_alpha.numel())

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """See `NoiseLayer.scale_`."""
        change = 2 * math.log(factor) if factor > 0 else SMALLEST_LOG_ALPHA
        self.log_alpha.add_(change).clamp_(min=SMALLEST_LOG_ALPHA)

    @torch.no_grad()
    def project_(self) -> None:
        """See `NoiseLayer.project_`: the approximation of the divergence holds for alpha of at most 1."""
        self.log_alpha.clamp_(SMALLEST_LOG_ALPHA, 0.0)

    def penalty(self, mean: Tensor | None = None) -> Tensor:
        """See `NoiseLayer.penalty`: the divergence from the prior, up to a constant, which depends on alpha alone."""
        del mean
        return self.weights_per_alpha * divergence_from_prior(self.log_alpha).sum()

    def linear_form(self, weight: Tensor) -> tuple[Tensor, None]:
        """See `NoiseLayer.linear_form`."""
        return (self.log_alpha / 2).exp() * weight, None

    def noise(self, tensor: Tensor) -> Tensor:
        """See `NoiseLayer.noise`. Gradients flow through the weight, which scales its own noise."""
        return (self.log_alpha / 2).exp() * tensor * self.normals(tensor.shape, tensor)


class VariationalDropoutOutputs(PreactivationNoise, VariationalDropoutLayer):
    """Noise layer for `sqrt(alpha) * w * n`, drawn at the outputs of the layer of the weight."""


def divergence_from_prior(log_alpha: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """KL(q || p) of one weight for each log(alpha), in nats and up to a constant.

    The paper approximates -KL(q || p) by constant + log(alpha) / 2 + c1 alpha + c2 alpha^2 + c3 alpha^3. The constant,
    which does not affect gradients, is omitted. The result decreases with alpha, so the term favours noise.

    Args:
        log_alpha: logarithms of alpha, of any shape, at most 0 for the approximation to hold.
    """
    alpha, (first, second, third) = log_alpha.exp(), COEFFICIENTS
    return -(log_alpha / 2 + alpha * (first + alpha * (second + alpha * third)))
