"""The paper's appendix A: a support vector machine under attack, with and without noise on its input.

The classifier is w . x + b. With the hinge loss, noise eta ~ N(0, sigma^2 I) on the input and an attack of length at
most eps in the p-norm that sees the noise, the objective of a sample (eq. A.26) is

    E max_delta ReLU(1 - y (w . (x + eta - delta) + b)) = E ReLU(u + c + s n),    n ~ N(0, 1),

where u = 1 - y (w . x + b), c = eps ||w||_q with 1/p + 1/q = 1, and s = sigma ||w||_2. The appendix moves the attack
and the noise out of the ReLU, which gives c + ReLU(u) with and without noise (eq. A.27 and A.28). That is exact where
u >= 0 and u + c + s n > 0 for nearly all n. Elsewhere the objective is larger with noise than without, by Jensen's
inequality, and c + ReLU(u) is larger than the objective without noise if u < 0 < c. The functions compute all three.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.errors import ArgumentError

NORMAL = torch.distributions.Normal(0.0, 1.0)


def dual_exponent(p: float) -> float:
    """The exponent q with 1/p + 1/q = 1, for p in [1, infinity]."""
    if not p >= 1:
        raise ArgumentError("p", "a number of at least 1, or infinity", p)
    return math.inf if p == 1 else 1.0 if math.isinf(p) else p / (p - 1)


def hinge(
    weight: Float[Tensor, " d"], bias: float, inputs: Float[Tensor, "n d"], labels: Int[Tensor, " n"], gain: float = 0.0
) -> Float[Tensor, " n"]:
    """Hinge loss ReLU(1 - y (w . x + b) + gain) of each sample.

    Args:
        weight: w, (D,).
        bias: b.
        inputs: samples x, (N, D).
        labels: classes y in {-1, 1}, (N,).
        gain: what an attack adds to the argument of the ReLU.
    """
    return (1 - labels * (inputs @ weight + bias) + gain).relu()


def attack_gain(weight: Float[Tensor, " d"], eps: float, p: float) -> float:
    """Largest w . delta over attacks of length at most eps in the p-norm: eps times the dual norm of w."""
    return eps * float(torch.linalg.vector_norm(weight, dual_exponent(p)))


def strongest_attack(weight: Float[Tensor, " d"], eps: float, p: float) -> Float[Tensor, " d"]:
    """An attack delta of length eps in the p-norm with the largest w . delta (the direction a of eq. A.30)."""
    if p == 1:
        largest = torch.zeros_like(weight)
        index = weight.abs().argmax()
        largest[index] = weight[index].sign()
        return eps * largest
    if math.isinf(p):
        return eps * weight.sign()
    direction = weight.sign() * weight.abs() ** (dual_exponent(p) - 1)
    return eps * direction / torch.linalg.vector_norm(direction, p)


def objective(
    weight: Float[Tensor, " d"],
    bias: float,
    inputs: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    *,
    eps: float,
    sigma: float,
    p: float,
) -> Float[Tensor, " n"]:
    """Objective of each sample under the strongest attack and noise (eq. A.26), in closed form.

    With m = u + c and s = sigma ||w||_2 it is E ReLU(m + s n) = m Phi(m / s) + s phi(m / s), and ReLU(m) for sigma = 0.

    Args:
        weight: w, (D,).
        bias: b.
        inputs: samples x, (N, D).
        labels: classes y in {-1, 1}, (N,).
        eps: length of the attack in the p-norm.
        sigma: standard deviation of the noise in each coordinate.
        p: norm of the attack, from 1 to infinity.
    """
    mean = 1 - labels * (inputs @ weight + bias) + attack_gain(weight, eps, p)
    deviation = sigma * float(torch.linalg.vector_norm(weight))
    if deviation == 0:
        return mean.relu()
    ratio = mean / deviation
    return mean * NORMAL.cdf(ratio) + deviation * NORMAL.log_prob(ratio).exp()


def separated_objective(
    weight: Float[Tensor, " d"],
    bias: float,
    inputs: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    *,
    eps: float,
    p: float,
) -> Float[Tensor, " n"]:
    """Right-hand side of eq. A.28, eps ||w||_q + ReLU(1 - y (w . x + b)), which has no noise in it."""
    return attack_gain(weight, eps, p) + hinge(weight, bias, inputs, labels)


def estimated_objective(
    weight: Float[Tensor, " d"],
    bias: float,
    inputs: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    *,
    eps: float,
    sigma: float,
    p: float,
    num_samples: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Estimate `objective` from draws of the noise, each followed by the strongest attack.

    Returns:
        The mean over draws of each sample, which is unbiased, and its standard error.
    """
    delta = strongest_attack(weight, eps, p)
    noise = sigma * torch.randn(num_samples, *inputs.shape, generator=generator, dtype=inputs.dtype)
    attacked = inputs + noise - labels[:, None] * delta
    losses = (1 - labels * (attacked @ weight + bias)).relu()
    return losses.mean(0), losses.std(0) / math.sqrt(num_samples)


def orthogonal_part(noise: Float[Tensor, "n d"], direction: Float[Tensor, " d"]) -> Float[Tensor, "n d"]:
    """The part of each noise that is orthogonal to a direction, eta_0 of eq. A.29."""
    unit = direction / torch.linalg.vector_norm(direction)
    return noise - (noise @ unit)[:, None] * unit


def parallel_length(orthogonal: Float[Tensor, "n d"], eps: float, p: float) -> Float[Tensor, " n"]:
    """Length of an attack along its direction by eq. A.30, (eps^p - ||eta_0||_p^p)^(1/p); eps for p = infinity.

    It is 0 where the orthogonal part alone is longer than eps.
    """
    lengths = torch.linalg.vector_norm(orthogonal, p, dim=1)
    if math.isinf(p):
        return eps * (lengths <= eps).to(orthogonal)
    return (eps**p - lengths**p).clamp(min=0) ** (1 / p)


def longest_parallel_length(
    orthogonal: Float[Tensor, "n d"], direction: Float[Tensor, " d"], eps: float, p: float, bisections: int = 60
) -> Float[Tensor, " n"]:
    """Length, in the p-norm, of the longest step along a direction that keeps the whole attack within eps.

    It is found by bisection, without eq. A.30, which it equals for p = 2 and for directions along an axis.
    """
    unit = direction / torch.linalg.vector_norm(direction, p)
    low, high = torch.zeros(len(orthogonal), dtype=orthogonal.dtype), torch.full((len(orthogonal),), 2.0 * eps)
    high = high.to(orthogonal)
    for _ in range(bisections):
        middle = (low + high) / 2
        fits = torch.linalg.vector_norm(orthogonal + middle[:, None] * unit, p, dim=1) <= eps
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return low


def expected_orthogonal_power(direction: Float[Tensor, " d"], sigma: float, p: float) -> float:
    """E ||eta_0||_p^p for noise N(0, sigma^2 I) and a finite p, in closed form.

    Coordinate i of eta_0 is normal with variance sigma^2 (1 - a_i^2), where a is the unit vector of the direction, and
    E |n|^p = 2^(p/2) Gamma((p + 1) / 2) / sqrt(pi).
    """
    unit = direction / torch.linalg.vector_norm(direction)
    moment = 2 ** (p / 2) * math.gamma((p + 1) / 2) / math.sqrt(math.pi)
    return moment * float(((sigma * (1 - unit.square()).clamp(min=0).sqrt()) ** p).sum())


def orthogonal_norm_cdf(lengths: Float[Tensor, " n"], dimension: int, sigma: float, p: float) -> Float[Tensor, " n"]:
    """Distribution function of ||eta_0||_p at `lengths`, for p = 2, or for p = infinity and a direction along an axis.

    ||eta_0||_2^2 / sigma^2 is chi-squared with D - 1 degrees of freedom; the maximum of D - 1 independent |normals| has
    the distribution function (2 Phi(t / sigma) - 1)^(D - 1).

    Raises:
        ArgumentError: another p.
    """
    if p == 2:
        return torch.special.gammainc(torch.full_like(lengths, (dimension - 1) / 2), lengths.square() / (2 * sigma**2))
    if math.isinf(p):
        return (2 * NORMAL.cdf(lengths / sigma) - 1) ** (dimension - 1)
    raise ArgumentError("p", "2 or infinity", p)
