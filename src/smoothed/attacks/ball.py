"""Perturbation balls in L-inf and L2: random starts, steepest directions and projections."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness, normal_, uniform_
from smoothed.utils.checks import check_choice, check_not_negative
from smoothed.utils.shapes import ImageBatch

Norm = Literal["linf", "l2"]
Radius = float | Tensor
"""A radius in pixel units of [0, 1]: a number, or one radius per image, (N, 1, 1, 1)."""

# Lower bound for a norm that is divided by: an image with zero gradient gets a zero step instead of NaN.
TINY = 1e-12


@dataclass(frozen=True)
class Ball:
    """Operations on the ball of one norm. Perturbations and gradients have shape (N, C, H, W).

    Attributes:
        uniform: function of (like, eps, randomness) that draws perturbations of the shape of `like` uniformly from the
            ball.
        steepest: function of gradients that returns the direction of steepest ascent under the norm.
        project: function of (perturbations, eps) that returns the nearest perturbations inside the ball.
    """

    uniform: Callable[[Tensor, Radius, Randomness], Tensor]
    steepest: Callable[[Tensor], Tensor]
    project: Callable[[Tensor, Radius], Tensor]


def ball(norm: Norm) -> Ball:
    """Return the operations on the ball of `norm`.

    Raises:
        ArgumentError: the norm is neither `linf` nor `l2`.
    """
    check_choice(norm, BALLS, "norm")
    return BALLS[norm]


def check_radius(value: float | Tensor, inputs: ImageBatch, name: str) -> Radius:
    """Return `value` ready to multiply images: a number, or a tensor (N,) reshaped to (N, 1, 1, 1).

    Args:
        value: radius or step length in pixel units of [0, 1], one for all images or one per image.
        inputs: images (N, C, H, W), which give the number of images, the device and the dtype.
        name: name of the argument in errors.

    Raises:
        ArgumentError: `value` is negative or not finite, or is a tensor of a shape other than (N,).
    """
    if not isinstance(value, Tensor):
        return check_not_negative(value, name)
    if value.shape != inputs.shape[:1]:
        raise ArgumentError(name, f"a number or a tensor of shape ({len(inputs)},)", f"shape {tuple(value.shape)}")
    invalid = value[~((value >= 0) & value.isfinite())].tolist()
    if invalid:
        raise ArgumentError(name, "finite numbers of at least 0", invalid[0])
    return value.to(inputs).view(-1, 1, 1, 1)


def _uniform_linf(like: ImageBatch, eps: Radius, randomness: Randomness) -> ImageBatch:
    return uniform_(torch.empty_like(like), -1, 1, randomness) * eps


def _uniform_l2(like: ImageBatch, eps: Radius, randomness: Randomness) -> ImageBatch:
    direction = normal_(torch.empty_like(like), randomness)
    dimensions = direction[0].numel()
    radius = uniform_(torch.empty(len(like), 1, 1, 1, device=like.device, dtype=like.dtype), 0, 1, randomness)
    return _unit_l2(direction) * radius.pow(1 / dimensions) * eps


def _norm_l2(tensor: ImageBatch) -> Float[Tensor, "n 1 1 1"]:
    return tensor.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _unit_l2(tensor: ImageBatch) -> ImageBatch:
    return tensor / _norm_l2(tensor).clamp_min(TINY)


def _project_linf(delta: ImageBatch, eps: Radius) -> ImageBatch:
    if isinstance(eps, Tensor):
        return torch.maximum(torch.minimum(delta, eps), -eps)
    return delta.clamp(-eps, eps)


def _project_l2(delta: ImageBatch, eps: Radius) -> ImageBatch:
    return delta * (eps / _norm_l2(delta).clamp_min(TINY)).clamp_max(1)


BALLS: dict[str, Ball] = {
    "linf": Ball(_uniform_linf, torch.sign, _project_linf),
    "l2": Ball(_uniform_l2, _unit_l2, _project_l2),
}
