"""Appendix A in numbers: each of its statements, estimated from draws and in closed form."""

import math
from typing import Any

import torch
from torch import Tensor

from smoothed.evaluation.results import Z
from smoothed.paper.appendix import (
    estimated_objective,
    expected_orthogonal_power,
    longest_parallel_length,
    objective,
    orthogonal_norm_cdf,
    orthogonal_part,
    parallel_length,
    separated_objective,
    strongest_attack,
)
from smoothed.rng.seeds import seeded

EXPONENTS = (1.0, 2.0, 4.0, math.inf)
"""Norms of the attack."""
DIMENSION = 20
SIGMA, EPS, BIAS = 0.25, 2.0, 0.1
BISECTED = 500
"""Number of attacks whose length is found by bisection, too."""
MARGINS = (3.0, 1.5, 0.0, -1.0)
"""Signed margins y (w . x + b): far on the right side, near the hinge, on the boundary, and on the wrong side."""


def appendix_rows(num_samples: int = 20_000, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Compute appendix A on a random weight of unit length.

    Args:
        num_samples: draws of each estimate.
        seed: seed of the weight and of the draws.

    Returns:
        `objective`: for each p and margin, the objective without noise, with noise (closed form, estimate and 95 %
        interval), and eq. A.28. `orthogonal`: for each p and direction, the mean p-th power of the orthogonal part (or
        its distribution function for p = infinity), and the length along the direction by eq. A.30 and by bisection.
    """
    generator = seeded(seed)
    weight = torch.randn(DIMENSION, generator=generator, dtype=torch.float64)
    weight /= torch.linalg.vector_norm(weight)
    labels = torch.ones(len(MARGINS), dtype=torch.int64)
    inputs = (torch.tensor(MARGINS, dtype=torch.float64) - BIAS)[:, None] * weight
    noise = SIGMA * torch.randn(num_samples, DIMENSION, generator=generator, dtype=torch.float64)
    axis = torch.eye(DIMENSION, dtype=torch.float64)[0]
    directions = {"axis": lambda _: axis, "strongest attack": lambda p: strongest_attack(weight, 1.0, p)}
    sample = (weight, BIAS, inputs, labels)
    return {
        "objective": [row for p in EXPONENTS for row in _objectives(sample, p, num_samples, generator)],
        "orthogonal": [_orthogonal(noise, make(p), name, p) for p in EXPONENTS for name, make in directions.items()],
    }


def _objectives(
    sample: tuple[Tensor, float, Tensor, Tensor], p: float, num_samples: int, generator: torch.Generator
) -> list[dict[str, Any]]:
    options = {"eps": EPS / DIMENSION, "p": p}
    without = objective(*sample, sigma=0.0, **options)
    exact = objective(*sample, sigma=SIGMA, **options)
    separated = separated_objective(*sample, **options)
    estimate, error = estimated_objective(*sample, sigma=SIGMA, num_samples=num_samples, generator=generator, **options)
    return [
        {
            "p": _json(p),
            "margin": margin,
            "without_noise": float(without[i]),
            "with_noise": float(exact[i]),
            "estimate": float(estimate[i]),
            "estimate_interval": [float(estimate[i] - Z * error[i]), float(estimate[i] + Z * error[i])],
            "equation_a28": float(separated[i]),
        }
        for i, margin in enumerate(MARGINS)
    ]


def _orthogonal(noise: Tensor, direction: Tensor, name: str, p: float) -> dict[str, Any]:
    orthogonal = orthogonal_part(noise, direction)
    lengths = torch.linalg.vector_norm(orthogonal, p, dim=1)
    if math.isinf(p):
        quantity, values = f"P(norm <= {2 * SIGMA:g})", (lengths <= 2 * SIGMA).double()
        bound = torch.tensor([2 * SIGMA], dtype=torch.float64)
        law = float(orthogonal_norm_cdf(bound, DIMENSION, SIGMA, p)) if name == "axis" else None
    else:
        quantity, values, law = "mean of norm^p", lengths**p, expected_orthogonal_power(direction, SIGMA, p)
    error = float(values.std()) / math.sqrt(len(values))
    mean = float(values.mean())
    # Long enough that no orthogonal part alone exceeds it.
    eps, some = 1.5 * float(lengths.max()), orthogonal[:BISECTED]
    return {
        "p": _json(p),
        "direction": name,
        "quantity": quantity,
        "law": law,
        "estimate": mean,
        "estimate_interval": [mean - Z * error, mean + Z * error],
        "eps": eps,
        "length_by_equation_a30": float(parallel_length(some, eps, p).mean()),
        "length_by_bisection": float(longest_parallel_length(some, direction, eps, p).mean()),
    }


def _json(p: float) -> float | str:
    return "infinity" if math.isinf(p) else p
