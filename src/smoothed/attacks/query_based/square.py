"""Square attack (Andriushchenko et al., ECCV 2020): random search that changes one square of an image at a time."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.attacks.ball import TINY, Norm, ball
from smoothed.attacks.losses import Loss, margin
from smoothed.attacks.query_based.queries import Queries
from smoothed.attacks.query_based.query_attack import QueryAttack
from smoothed.rng.rows import Randomness, uniform_
from smoothed.utils.checks import (
    check_choice,
    check_fraction,
    check_generator,
    check_not_negative,
    check_not_negative_integer,
    check_positive,
)
from smoothed.utils.modes import Classifier
from smoothed.utils.shapes import ImageRows

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Iterations, of 10,000, after which the fraction of changed pixels is halved (section 4)."""
SCHEDULE_LENGTH = 10_000


def square(
    model: Classifier | Queries,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    max_queries: int | None = None,
    p_init: float = 0.8,
    loss: Loss = margin,
    targeted: bool = False,
    restarts: int = 1,
    eot_samples: int = 1,
    remeasure_every: int = 0,
    confidence: float = 0.0,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Return adversarial inputs by random search in the ball of radius `eps`, from the answers to queries.

    The first query is the image itself, the second adds stripes (`l2`: a grid of bumps) of random signs. Each later
    candidate changes a random square of the best image so far, and is kept if the loss has grown. An image is done at
    its first success; the remaining images are queried in full batches. The margin is the same for logits and for
    logarithms of shares.

    A random classifier answers each query by a fresh draw, and `eot_samples` averages its answers. A candidate with a
    lucky draw is hard to beat afterwards, so `remeasure_every` replaces the value of the best candidate by a fresh one
    from time to time. A short interval does harm if there are many queries, since a fresh value can be unlucky, too. A
    success may also be due to chance: with a `confidence` of infinity all queries are used, and the best candidate is
    returned.

    Args:
        model: any callable from images to logits (N, K), or `Queries` of logits or shares.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `targeted`.
        eps: radius in pixel units of [0, 1], of each pixel for `linf` and of the whole image for `l2`.
        norm: `linf` (the paper's algorithm 2) or `l2` (algorithm 3).
        max_queries: maximum number of queries per image; the limit of `Queries` applies too. None for 1,000 if
            `Queries` sets no limit.
        p_init: initial fraction of pixels in a square, in [0, 1], the paper's p. It is halved by the paper's schedule,
            scaled to the number of queries.
        loss: loss of the answers to ascend, or to descend if `targeted`: `margin`, or `cross_entropy`.
        targeted: whether `labels` are target classes.
        restarts: number of searches, among which the queries are divided evenly; for each image the result with the
            highest loss is kept.
        eot_samples: number of answers averaged for each candidate; each counts as a query.
        remeasure_every: number of candidates after which the best candidate is queried again; 0 for never, the right
            choice for a deterministic classifier.
        confidence: margin in logits above which an image is done; infinity uses all queries.
        generator: source of random squares, on the inputs' device; None for torch's default generator. With
            `rng.rows.RowGenerator` the squares of an image do not depend on its batch.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), with the inputs' device and dtype.

    Raises:
        ArgumentError: inputs or labels are invalid (see `check_inputs` and `check_labels`), eps or `remeasure_every` is
            negative, the norm is unknown, p_init is outside [0, 1], the answers are only labels, or there are fewer
            queries than `eot_samples`.
    """
    check_choice(norm, MOVES, "norm")
    check_not_negative(eps, "eps")
    check_fraction(p_init, "p_init")
    check_positive(restarts, "restarts")
    check_not_negative_integer(remeasure_every, "remeasure_every")
    check_generator(generator)
    search = QueryAttack(
        "square",
        model,
        inputs,
        labels,
        loss=loss,
        targeted=targeted,
        max_queries=max_queries,
        eot_samples=eot_samples,
        confidence=confidence,
    )
    inputs, moves, project = search.inputs, MOVES[norm], ball(norm).project
    best_images, best_values = inputs.clone(), torch.full((len(inputs),), -torch.inf, device=inputs.device)

    def evaluate(delta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        candidates = (inputs[rows] + project(delta, eps)).clamp(0, 1)
        return candidates, search.ask(candidates[:, None], rows)[:, 0].float()

    def random_search(num_candidates: int) -> tuple[Tensor, Tensor]:
        best, values = inputs.clone(), torch.full_like(best_values, -torch.inf)
        rows = search.active
        best[rows], values[rows] = evaluate(moves.start(inputs, eps, generator)[rows], rows)
        for iteration in range(1, num_candidates):
            rows = search.active
            if not len(rows):
                break
            if remeasure_every and iteration % (remeasure_every + 1) == 0:
                values[rows] = search.ask(best[rows][:, None], rows)[:, 0].float()
                continue
            uniforms = uniform_(
                inputs.new_empty(len(inputs), NUM_GEOMETRY_UNIFORMS + inputs.shape[1]), 0, 1, generator
            )[rows]
            fraction = p_init / 2 ** halvings(iteration, num_candidates)
            candidates, new_values = evaluate(moves.step(best[rows] - inputs[rows], fraction, eps, uniforms), rows)
            better = new_values > values[rows]
            best[rows[better]], values[rows[better]] = candidates[better], new_values[better]
        return best, values

    search.ask(inputs[:, None], search.active)
    for restart in range(restarts):
        num_candidates = (search.max_candidates - 1 + restart) // restarts
        if num_candidates and len(search.active):
            best, values = random_search(num_candidates)
            better = values > best_values
            best_images = torch.where(better.view(-1, 1, 1, 1), best, best_images)
            best_values = torch.where(better, values, best_values)
    return search.result(best_images)


def halvings(iteration: int, num_candidates: int) -> int:
    """Return how often the fraction of changed pixels has been halved at `iteration` of `num_candidates`."""
    scaled = iteration * SCHEDULE_LENGTH // num_candidates
    return sum(scaled > halving for halving in HALVINGS)


# Random numbers per image and step, before one sign per channel: two corners of two coordinates, and an orientation.
NUM_GEOMETRY_UNIFORMS = 5


@dataclass(frozen=True)
class Moves:
    """The random moves of the attack for one norm.

    Attributes:
        start: makes initial perturbations from inputs (N, C, H, W), eps and a random source.
        step: changes perturbations (M, C, H, W); it takes the fraction of pixels, eps, and uniform numbers in [0, 1] of
            shape (M, 5 + C).
    """

    start: Callable[[Tensor, float, Randomness], Tensor]
    step: Callable[[Tensor, float, float, Tensor], Tensor]


def _start_linf(inputs: ImageRows, eps: float, randomness: Randomness) -> ImageRows:
    """Vertical stripes of one pixel's width, with a random sign per stripe and channel."""
    num_images, channels, _, width = inputs.shape
    return (eps * _signs(uniform_(inputs.new_empty(num_images, channels, 1, width), 0, 1, randomness))).expand_as(
        inputs
    )


def _step_linf(delta: ImageRows, fraction: float, eps: float, uniforms: Float[Tensor, "m l"]) -> ImageRows:
    """Set a square to +eps or -eps in each channel (algorithm 2)."""
    height, width = delta.shape[2:]
    side = min(max(round(math.sqrt(fraction * height * width)), 1), height, width)
    signs = _signs(uniforms[:, NUM_GEOMETRY_UNIFORMS:, None, None])
    return torch.where(_square(uniforms[:, 0], uniforms[:, 1], side, height, width), eps * signs, delta)


def _start_l2(inputs: ImageRows, eps: float, randomness: Randomness) -> ImageRows:
    """A grid of five by five bumps with random signs per channel, on the sphere of radius eps."""
    num_images, channels, height, width = inputs.shape
    side = max(min(height, width) // 5, 1)
    across, down = width // side, height // side
    signs = _signs(uniform_(inputs.new_empty(num_images, channels, down, 1, across, 1), 0, 1, randomness))
    tiles = (signs * bump(side, like=inputs)[:, None, :]).reshape(num_images, channels, down * side, across * side)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    delta = torch.zeros_like(inputs)
    delta[:, :, top : top + down * side, left : left + across * side] = tiles
    return eps * _unit(delta, (1, 2, 3))


def _step_l2(delta: ImageRows, fraction: float, eps: float, uniforms: Float[Tensor, "m l"]) -> ImageRows:
    """Move the mass of a second square and the unused norm onto a bump in the first square (algorithm 3)."""
    channels, height, width = delta.shape[1:]
    side = max(round(math.sqrt(fraction * height * width)), 3)
    side = min(side + 1 - side % 2, height, width)
    target = _square(uniforms[:, 0], uniforms[:, 1], side, height, width)
    source = _square(uniforms[:, 2], uniforms[:, 3], side, height, width)
    unused = (eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp_min(0)
    moved = torch.where(target | source, delta, 0).square().sum((2, 3), keepdim=True)
    pair = _unit(bump_pair(side, like=delta), (0, 1))
    pair = torch.where((uniforms[:, 4] < 0.5).view(-1, 1, 1), pair, pair.T)
    spread = torch.zeros_like(delta[:, :1])
    spread[target] = pair.flatten()
    inside = torch.where(target, delta, 0)
    shape = spread * _signs(uniforms[:, NUM_GEOMETRY_UNIFORMS:, None, None]) + _unit(inside, (2, 3))
    placed = _unit(shape, (2, 3)) * (moved + unused / channels).sqrt()
    return torch.where(target, placed, torch.where(source, 0, delta))


MOVES: dict[str, Moves] = {"linf": Moves(_start_linf, _step_linf), "l2": Moves(_start_l2, _step_l2)}


def bump(height: int, width: int | None = None, *, like: Tensor) -> Float[Tensor, "h w"]:
    """A bump centred in a rectangle (the paper's eq. 2): sums of 1 / (n + 1 - k)^2, with n half the height."""
    width = height if width is None else width
    half = height // 2
    row = (torch.arange(1, height + 1) - half - 1).abs()
    column = (torch.arange(1, width + 1) - width // 2 - 1).abs()
    terms = 1 / (half + 1 - torch.arange(half + 1, dtype=torch.float64)).square()
    return terms.cumsum(0)[half - torch.maximum(row[:, None], column)].to(like)


def bump_pair(side: int, *, like: Tensor) -> Float[Tensor, "side side"]:
    """A bump beside a negative bump, in a square: two rectangles of opposite sign (section 4.2)."""
    half = side // 2
    return torch.cat([bump(side, half, like=like), -bump(side, side - half, like=like)], 1)


def _square(
    down: Float[Tensor, " m"], across: Float[Tensor, " m"], side: int, height: int, width: int
) -> Bool[Tensor, "m 1 h w"]:
    """Return one square mask per image, with its corner at the fractions `down` and `across` of the possible range."""

    def interval(fraction: Tensor, size: int) -> Tensor:
        corner: Int[Tensor, "m 1"] = (fraction[:, None] * (size - side + 1)).long().clamp_max(size - side)
        coordinate = torch.arange(size, device=fraction.device)
        return (coordinate >= corner) & (coordinate < corner + side)

    return (interval(down, height)[:, :, None] & interval(across, width)[:, None, :])[:, None]


def _signs(uniforms: Tensor) -> Tensor:
    return torch.where(uniforms < 0.5, -1.0, 1.0).to(uniforms)


def _unit(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
    return tensor / torch.linalg.vector_norm(tensor, dim=dims, keepdim=True).clamp_min(TINY)
