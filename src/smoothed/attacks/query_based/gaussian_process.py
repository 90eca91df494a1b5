"""Batched Gaussian process regression (Rasmussen and Williams, 2006, algorithm 2.1 and eq. 5.8)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.errors import ArgumentError

# Lengthscales to choose from, in units of the square root of the dimension, as distances in a cube scale.
LENGTHSCALES = tuple(2.0**power for power in range(-3, 5))
# Ratios of noise variance to process variance to choose from; the smallest keeps Cholesky stable in float32.
NOISE_RATIOS = (1e-3, 1e-2, 1e-1, 1.0)


def matern(distances: Tensor) -> Tensor:
    """Matern-5/2 correlation at `distances`, which are in units of the lengthscale."""
    scaled = math.sqrt(5) * distances
    return (1 + scaled + scaled.square() / 3) * (-scaled).exp()


@dataclass(frozen=True)
class GaussianProcess:
    """M Gaussian processes in D dimensions, each conditioned on P values; constant mean, Matern-5/2, one lengthscale.

    Attributes:
        points: points with known values, (M, P, D).
        mean: constant means, (M,).
        variance: variances of the processes around their means, (M,).
        lengthscale: lengthscales, (M,).
        factor: lower Cholesky factors of the correlation matrices including noise, (M, P, P).
        weights: inverse correlation matrices times the centred values, (M, P, 1).
    """

    points: Float[Tensor, "m p d"]
    mean: Float[Tensor, " m"]
    variance: Float[Tensor, " m"]
    lengthscale: Float[Tensor, " m"]
    factor: Float[Tensor, "m p p"]
    weights: Float[Tensor, "m p 1"]

    def posterior(self, points: Float[Tensor, "m q d"]) -> tuple[Float[Tensor, "m q"], Float[Tensor, "m q"]]:
        """Return the posterior mean and standard deviation at `points`, without noise, each (M, Q); differentiable."""
        correlations = matern(torch.cdist(self.points, points) / self.lengthscale[:, None, None])
        mean = self.mean[:, None] + (correlations * self.weights).sum(1)
        explained = torch.linalg.solve_triangular(self.factor, correlations, upper=False).square().sum(1)
        return mean, (self.variance[:, None] * (1 - explained).clamp_min(1e-9)).sqrt()


def condition(
    points: Float[Tensor, "m p d"],
    values: Float[Tensor, "m p"],
    lengthscale: Float[Tensor, " m"],
    noise: Float[Tensor, " m"],
) -> tuple[GaussianProcess, Float[Tensor, " m"]]:
    """Return the processes conditioned on `values` at `points`, and their log marginal likelihoods, (M,).

    The constant mean is the mean of the values; the variance is the maximum-likelihood estimate, in closed form.

    Args:
        points: points, (M, P, D).
        values: values at the points, (M, P).
        lengthscale: lengthscales, (M,).
        noise: ratios of noise variance to process variance, (M,).
    """
    count = points.shape[1]
    mean = values.mean(1)
    correlations = matern(torch.cdist(points, points) / lengthscale[:, None, None])
    noisy_correlations = correlations + noise[:, None, None] * torch.eye(
        count, dtype=values.dtype, device=values.device
    )
    factor = torch.linalg.cholesky(noisy_correlations)
    centred = (values - mean[:, None])[:, :, None]
    weights = torch.cholesky_solve(centred, factor)
    variance = ((centred * weights).sum((1, 2)) / count).clamp_min(torch.finfo(values.dtype).tiny)
    log_determinant = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
    likelihood = -(count * ((2 * math.pi * variance).log() + 1) + log_determinant) / 2
    return GaussianProcess(points, mean, variance, lengthscale, factor, weights), likelihood


def fit_hyperparameters(
    points: Float[Tensor, "m p d"],
    values: Float[Tensor, "m p"],
    lengthscales: Sequence[float] = LENGTHSCALES,
    noises: Sequence[float] = NOISE_RATIOS,
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Return the lengthscale and the noise ratio with the highest marginal likelihood on a grid, each (M,).

    Args:
        points: points, (M, P, D).
        values: values at the points, (M, P).
        lengthscales: lengthscales to choose from, in units of the square root of D.
        noises: ratios of noise variance to process variance to choose from.

    Raises:
        ArgumentError: `lengthscales` or `noises` is empty.
    """
    if not lengthscales or not noises:
        raise ArgumentError("noises" if lengthscales else "lengthscales", "at least one value", "none")
    best = torch.full_like(values[:, 0], -torch.inf)
    chosen = best, best
    for lengthscale in lengthscales:
        for noise in noises:
            pair = torch.full_like(best, lengthscale * math.sqrt(points.shape[2])), torch.full_like(best, noise)
            _, likelihood = condition(points, values, *pair)
            better = likelihood > best
            best = torch.where(better, likelihood, best)
            chosen = torch.where(better, pair[0], chosen[0]), torch.where(better, pair[1], chosen[1])
    return chosen
