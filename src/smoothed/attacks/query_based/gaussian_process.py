"""Gaussian process regression, many processes at once (Rasmussen and Williams, 2006, algorithm 2.1 and eq. 5.8)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.errors import ArgumentError

# In units of the root of the dimension, which is how distances in a cube grow.
LENGTHSCALES = tuple(2.0**power for power in range(-3, 5))
# Variance of the noise over that of the process; the smallest keeps Cholesky's factors in float32.
NOISES = (1e-3, 1e-2, 1e-1, 1.0)


def matern(distances: Tensor) -> Tensor:
    """The Matern-5/2 correlation at `distances`, in lengthscales."""
    scaled = math.sqrt(5) * distances
    return (1 + scaled + scaled.square() / 3) * (-scaled).exp()


@dataclass(frozen=True)
class GaussianProcess:
    """M Gaussian processes on D dimensions, given P values of each: constant mean, Matern-5/2, one lengthscale.

    Attributes:
        places: where values are known, (M, P, D).
        mean: (M,).
        variance: of the process around its mean, (M,).
        lengthscale: (M,).
        factor: the lower Cholesky factor of the correlations, noise included, (M, P, P).
        weights: correlations' inverse times the values less the mean, (M, P, 1).
    """

    places: Float[Tensor, "m p d"]
    mean: Float[Tensor, " m"]
    variance: Float[Tensor, " m"]
    lengthscale: Float[Tensor, " m"]
    factor: Float[Tensor, "m p p"]
    weights: Float[Tensor, "m p 1"]

    def at(self, places: Float[Tensor, "m q d"]) -> tuple[Float[Tensor, "m q"], Float[Tensor, "m q"]]:
        """The posterior mean and standard deviation, without noise, at `places`; differentiable."""
        known = matern(torch.cdist(self.places, places) / self.lengthscale[:, None, None])
        mean = self.mean[:, None] + (known * self.weights).sum(1)
        explained = torch.linalg.solve_triangular(self.factor, known, upper=False).square().sum(1)
        return mean, (self.variance[:, None] * (1 - explained).clamp_min(1e-9)).sqrt()


def condition(
    places: Float[Tensor, "m p d"],
    values: Float[Tensor, "m p"],
    lengthscale: Float[Tensor, " m"],
    noise: Float[Tensor, " m"],
) -> tuple[GaussianProcess, Float[Tensor, " m"]]:
    """The processes given `values` at `places`, and the logarithms of their marginal likelihoods.

    The mean is that of the values; the variance is the most likely one, which has a closed form.

    Args:
        places: (M, P, D).
        values: (M, P).
        lengthscale: (M,).
        noise: variance of the noise in the values over that of the process, (M,).
    """
    count = places.shape[1]
    mean = values.mean(1)
    correlations = matern(torch.cdist(places, places) / lengthscale[:, None, None])
    noisy = correlations + noise[:, None, None] * torch.eye(count, dtype=values.dtype, device=values.device)
    factor = torch.linalg.cholesky(noisy)
    centred = (values - mean[:, None])[:, :, None]
    weights = torch.cholesky_solve(centred, factor)
    variance = ((centred * weights).sum((1, 2)) / count).clamp_min(torch.finfo(values.dtype).tiny)
    log_determinant = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
    likelihood = -(count * ((2 * math.pi * variance).log() + 1) + log_determinant) / 2
    return GaussianProcess(places, mean, variance, lengthscale, factor, weights), likelihood


def most_likely(
    places: Float[Tensor, "m p d"],
    values: Float[Tensor, "m p"],
    lengthscales: Sequence[float] = LENGTHSCALES,
    noises: Sequence[float] = NOISES,
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """The lengthscale and the noise, each (M,), under which the values of each process are most likely, on a grid.

    Args:
        places: (M, P, D).
        values: (M, P).
        lengthscales: to choose from, in units of the root of D.
        noises: to choose from, in units of the variance of the process.

    Raises:
        ArgumentError: nothing to choose from.
    """
    if not lengthscales or not noises:
        raise ArgumentError("noises" if lengthscales else "lengthscales", "at least one", "none")
    best = torch.full_like(values[:, 0], -torch.inf)
    chosen = best, best
    for lengthscale in lengthscales:
        for noise in noises:
            pair = torch.full_like(best, lengthscale * math.sqrt(places.shape[2])), torch.full_like(best, noise)
            _, likelihood = condition(places, values, *pair)
            better = likelihood > best
            best = torch.where(better, likelihood, best)
            chosen = torch.where(better, pair[0], chosen[0]), torch.where(better, pair[1], chosen[1])
    return chosen
