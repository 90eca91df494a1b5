"""Gaussian posterior over weights (Adv-BNN; Liu, Li, Wu and Hsieh, ICLR 2019): noise of learned absolute deviation.

`w + sigma * n` with n ~ N(0, I) is a draw of the posterior q = N(w, sigma^2), whose mean w and log(sigma) are learned.
The training loss adds the divergence of this posterior from the prior N(0, sigma_0^2), for each weight

    KL(q || p) = log(sigma_0 / sigma) + (sigma^2 + w^2) / (2 sigma_0^2) - 1/2

divided by the number of training images, under adversarial examples. The paper minimises this sum. In the authors'
code, the network for CIFAR-10 and ImageNet (`models/vgg_vi.py`) sums the divergences of all layers but returns that of
the last one; that for STL-10 returns the sum. The code also draws biases and the parameters of batch norms; here, the
weights of convolutions and linear layers are drawn.
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
from smoothed.utils.checks import check_choice, check_not_negative

# log(sigma) of a noise of strength 0: its deviation is 0 in float32, and the divergence stays finite.
SMALLEST_LOG_SIGMA = -100.0


@dataclass(frozen=True)
class GaussianPosterior:
    """Law of the noise `sigma * n` on weights, whose deviation does not depend on the weights.

    The default deviations are those of a script of the authors' code, where prior and posterior start equal, at 0.05.
    Other scripts there have 0.08 and 0.15; choose yours on held-out images.

    Args:
        granularity: one sigma per `layer`, per `channel` (output channel), or, as published, per `element` of a weight.
        initial_sigma: initial deviation of the noise, in units of the weight, at least 0.
        prior_sigma: deviation sigma_0 of the prior, in the same units, above 0. It is not learned.

    Raises:
        ArgumentError: `granularity` is unknown, or a deviation is out of its range or not finite.
    """

    granularity: Granularity = "element"
    initial_sigma: float = 0.05
    prior_sigma: float = 0.05
    site: ClassVar[Site] = "input"

    def __post_init__(self) -> None:
        check_choice(self.granularity, ("layer", "channel", "element"), "granularity")
        check_not_negative(self.initial_sigma, "initial_sigma")
        if check_not_negative(self.prior_sigma, "prior_sigma") == 0:
            raise ArgumentError("prior_sigma", "a deviation above 0", self.prior_sigma)

    def scaled(self, strength: float) -> "GaussianPosterior":
        """Return the same law with the initial deviation multiplied by `strength`; the prior stays."""
        return replace(self, initial_sigma=self.initial_sigma * strength)

    def for_weight(self, weight: Tensor, channel_dim: int = 0) -> NoiseLayer:
        """Create the noise layer of a weight whose output channels run along `channel_dim`."""
        channels = [size if dim == channel_dim else 1 for dim, size in enumerate(weight.shape)]
        shapes = {"layer": (), "channel": channels, "element": weight.shape}
        return GaussianPosteriorLayer(shapes[self.granularity], self.initial_sigma, self.prior_sigma)

    def for_activation(self, channels: int, spatial: int) -> NoiseLayer:
        """Raise `ArgumentError`: the posterior is one over weights."""
        del channels, spatial
        raise ArgumentError("activations", "PNI, CNI or Additive", "GaussianPosterior", "pass it as weights=")


class GaussianPosteriorLayer(NoiseLayer):
    """Noise layer for `sigma * n`, where `log_sigma` has any shape that broadcasts to the weight."""

    decays = False

    def __init__(self, shape: Sequence[int], initial_sigma: float, prior_sigma: float) -> None:
        super().__init__(per_row=False)
        start = math.log(initial_sigma) if initial_sigma > 0 else SMALLEST_LOG_SIGMA
        self.log_sigma = nn.Parameter(torch.full(tuple(shape), max(start, SMALLEST_LOG_SIGMA)))
        self.prior_sigma = prior_sigma

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """See `NoiseLayer.scale_`."""
        change = math.log(factor) if factor > 0 else SMALLEST_LOG_SIGMA
        self.log_sigma.add_(change).clamp_(min=SMALLEST_LOG_SIGMA)

    def penalty(self, mean: Tensor | None = None) -> Tensor | None:
        """See `NoiseLayer.penalty`: the divergence of the posterior from the prior, summed over the weights."""
        return None if mean is None else divergence_from_prior(mean, self.log_sigma, self.prior_sigma).sum()

    def linear_form(self, weight: Tensor) -> tuple[Tensor, None]:
        """See `NoiseLayer.linear_form`."""
        return self.log_sigma.exp().expand(weight.shape), None

    def noise(self, tensor: Tensor) -> Tensor:
        """See `NoiseLayer.noise`."""
        return self.log_sigma.exp() * self.normals(tensor.shape, tensor)


def divergence_from_prior(
    mean: Float[Tensor, "..."], log_sigma: Float[Tensor, "..."], prior_sigma: float
) -> Float[Tensor, "..."]:
    """Return KL(N(mean, sigma^2) || N(0, prior_sigma^2)) of each weight, in nats.

    Args:
        mean: means of the weights.
        log_sigma: logarithms of the deviations, of a shape that broadcasts to `mean`.
        prior_sigma: deviation of the prior, above 0.
    """
    squares = (2 * log_sigma).exp() + mean.square()
    return math.log(prior_sigma) - log_sigma + squares / (2 * prior_sigma**2) - 0.5
