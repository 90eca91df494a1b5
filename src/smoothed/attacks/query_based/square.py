"""The Square attack (Andriushchenko et al., ECCV 2020): random search that changes one square of an image at a time."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.attacks.ball import TINY, Norm, ball
from smoothed.attacks.losses import Loss, margin
from smoothed.attacks.query_based.pursuit import Pursuit
from smoothed.attacks.query_based.queries import Queries
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness, uniform_
from smoothed.utils.checks import check_choice, check_fraction, check_not_negative, check_positive
from smoothed.utils.modes import Classifier

Images = Float[Tensor, "m c h w"]

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The rounds, of 10,000, after which the share of pixels is halved (section 4)."""
SCHEDULED_ROUNDS = 10_000


def square(
    model: Classifier | Queries,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    max_queries: int | None = None,
    initial_share: float = 0.8,
    loss: Loss = margin,
    targeted: bool = False,
    restarts: int = 1,
    num_samples: int = 1,
    remeasure: int = 0,
    confidence: float = 0.0,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Adversarial inputs by random search inside the ball of radius `eps`, with nothing but answers to queries.

    The first query is about the image itself, the second about stripes (`l2`: a grid of bumps) of random signs; then
    each candidate changes a random square of the best so far, and stays if the loss grew. An image is done at its first
    success, and the queries of the others go on in full batches. The margin is the same in logits and in logarithms of
    shares.

    A random classifier answers each query by a fresh draw. `num_samples` averages the answers. A candidate that met a
    lucky draw would still be hard to beat, so `remeasure` replaces its value, which was chosen for being high, by a
    fresh one. Once in 40 candidates did good in the tests, and once in four harm, where there were many: a fresh value
    may be an unlucky one. A success may be luck just as well: a `confidence` of infinity spends all queries, and
    returns the candidate that stayed.

    Args:
        model: any callable from images to logits (N, K), or `Queries` of logits or shares.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach if `targeted`.
        eps: radius in pixel units of [0, 1]: of each pixel for `linf`, of the whole image for `l2`.
        norm: `linf` (their algorithm 2) or `l2` (algorithm 3).
        max_queries: for each image: the smaller of this and the bound of `Queries`; 1,000 where neither is given.
        initial_share: the share of pixels that the first squares cover, in [0, 1], the paper's p. It is halved along
            the paper's schedule, scaled to the number of queries.
        loss: of the answers, to ascend (to descend if `targeted`): `margin`, or `cross_entropy`.
        targeted: whether `labels` are what the attack wants.
        restarts: searches that share the queries evenly; for each image the end of the highest loss is kept.
        num_samples: answers averaged for each candidate; each is a query.
        remeasure: after how many candidates the one that stayed is asked about again; 0 for never, right for a
            classifier without randomness.
        confidence: the margin above which an image is done, in units of logits; infinity spends all queries.
        generator: on the inputs' device; torch's default one when None. `randomness.Rows` makes squares follow images.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), of the inputs' device and dtype.

    Raises:
        ArgumentError: inputs or labels as `check_inputs` and `check_labels` refuse them, negative eps, an unknown norm,
            answers that are labels alone, fewer queries than `num_samples`.
    """
    check_choice(norm, MOVES, "norm")
    check_not_negative(eps, "eps")
    check_fraction(initial_share, "initial_share")
    check_positive(restarts, "restarts")
    if isinstance(remeasure, bool) or not isinstance(remeasure, int) or remeasure < 0:
        raise ArgumentError("remeasure", "an integer of at least 0", repr(remeasure))
    pursuit = Pursuit(
        "square",
        model,
        inputs,
        labels,
        loss=loss,
        targeted=targeted,
        max_queries=max_queries,
        num_samples=num_samples,
        confidence=confidence,
    )
    inputs, moves, project = pursuit.inputs, MOVES[norm], ball(norm).project
    ends = inputs.clone(), torch.full((len(inputs),), -torch.inf, device=inputs.device)

    def try_(delta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        candidates = (inputs[rows] + project(delta, eps)).clamp(0, 1)
        return candidates, pursuit.ask(candidates[:, None], rows)[:, 0].float()

    def search(rounds: int) -> tuple[Tensor, Tensor]:
        best, value = inputs.clone(), torch.full_like(ends[1], -torch.inf)
        rows = pursuit.open
        best[rows], value[rows] = try_(moves.start(inputs, eps, generator)[rows], rows)
        for tried in range(1, rounds):
            rows = pursuit.open
            if not len(rows):
                break
            if remeasure and tried % (remeasure + 1) == 0:
                value[rows] = pursuit.ask(best[rows][:, None], rows)[:, 0].float()
                continue
            lots = uniform_(inputs.new_empty(len(inputs), LOTS + inputs.shape[1]), 0, 1, generator)[rows]
            share = initial_share / 2 ** halvings(tried, rounds)
            candidates, answer = try_(moves.step(best[rows] - inputs[rows], share, eps, lots), rows)
            better = answer > value[rows]
            best[rows[better]], value[rows[better]] = candidates[better], answer[better]
        return best, value

    pursuit.ask(inputs[:, None], pursuit.open)
    for part in range(restarts):
        rounds = (pursuit.budget - 1 + part) // restarts
        if rounds and len(pursuit.open):
            best, value = search(rounds)
            better = value > ends[1]
            ends = torch.where(better.view(-1, 1, 1, 1), best, ends[0]), torch.where(better, value, ends[1])
    return pursuit.result(ends[0])


def halvings(tried: int, rounds: int) -> int:
    """How often the share of pixels has been halved after `tried` of `rounds` candidates."""
    at = tried * SCHEDULED_ROUNDS // rounds
    return sum(at > end for end in HALVINGS)


# Each image's random numbers of a step: two corners, a turn, and then a sign for each channel.
LOTS = 5


@dataclass(frozen=True)
class Moves:
    """How perturbations (M, C, H, W) start, and how a step changes them; `lots` (M, 5 + C) are uniform in [0, 1]."""

    start: Callable[[Tensor, float, Randomness], Tensor]
    step: Callable[[Tensor, float, float, Tensor], Tensor]


def _start_linf(inputs: Images, eps: float, randomness: Randomness) -> Images:
    """Vertical stripes of one pixel, of a random sign in each channel."""
    images, channels, _, width = inputs.shape
    return (eps * _signs(uniform_(inputs.new_empty(images, channels, 1, width), 0, 1, randomness))).expand_as(inputs)


def _step_linf(delta: Images, share: float, eps: float, lots: Float[Tensor, "m l"]) -> Images:
    """A square at +eps or -eps in each channel (algorithm 2)."""
    height, width = delta.shape[2:]
    side = min(max(round(math.sqrt(share * height * width)), 1), height, width)
    signs = _signs(lots[:, LOTS:, None, None])
    return torch.where(_square(lots[:, 0], lots[:, 1], side, height, width), eps * signs, delta)


def _start_l2(inputs: Images, eps: float, randomness: Randomness) -> Images:
    """A grid of five by five bumps, of random signs in each channel, on the sphere."""
    images, channels, height, width = inputs.shape
    side = max(min(height, width) // 5, 1)
    across, down = width // side, height // side
    signs = _signs(uniform_(inputs.new_empty(images, channels, down, 1, across, 1), 0, 1, randomness))
    tiles = (signs * bump(side, like=inputs)[:, None, :]).reshape(images, channels, down * side, across * side)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    delta = torch.zeros_like(inputs)
    delta[:, :, top : top + down * side, left : left + across * side] = tiles
    return eps * _unit(delta, (1, 2, 3))


def _step_l2(delta: Images, share: float, eps: float, lots: Float[Tensor, "m l"]) -> Images:
    """The mass of a second square, and all that is unused, moves to the first, onto a bump (algorithm 3)."""
    channels, height, width = delta.shape[1:]
    side = max(round(math.sqrt(share * height * width)), 3)
    side = min(side + 1 - side % 2, height, width)
    into = _square(lots[:, 0], lots[:, 1], side, height, width)
    out_of = _square(lots[:, 2], lots[:, 3], side, height, width)
    unused = (eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp_min(0)
    moved = torch.where(into | out_of, delta, 0).square().sum((2, 3), keepdim=True)
    pair = _unit(bump_pair(side, like=delta), (0, 1))
    pair = torch.where((lots[:, 4] < 0.5).view(-1, 1, 1), pair, pair.T)
    spread = torch.zeros_like(delta[:, :1])
    spread[into] = pair.flatten()
    inside = torch.where(into, delta, 0)
    shape = spread * _signs(lots[:, LOTS:, None, None]) + _unit(inside, (2, 3))
    placed = _unit(shape, (2, 3)) * (moved + unused / channels).sqrt()
    return torch.where(into, placed, torch.where(out_of, 0, delta))


MOVES: dict[str, Moves] = {"linf": Moves(_start_linf, _step_linf), "l2": Moves(_start_l2, _step_l2)}


def bump(height: int, width: int | None = None, *, like: Tensor) -> Float[Tensor, "h w"]:
    """A hill in the middle of a rectangle, the paper's eq. 2: sums of 1 / (n + 1 - k)^2 with n half the height."""
    width = height if width is None else width
    half = height // 2
    row = (torch.arange(1, height + 1) - half - 1).abs()
    column = (torch.arange(1, width + 1) - width // 2 - 1).abs()
    terms = 1 / (half + 1 - torch.arange(half + 1, dtype=torch.float64)).square()
    return terms.cumsum(0)[half - torch.maximum(row[:, None], column)].to(like)


def bump_pair(side: int, *, like: Tensor) -> Float[Tensor, "side side"]:
    """A hill beside a hollow, in a square: two rectangles of opposite sign (section 4.2)."""
    half = side // 2
    return torch.cat([bump(side, half, like=like), -bump(side, side - half, like=like)], 1)


def _square(
    down: Float[Tensor, " m"], across: Float[Tensor, " m"], side: int, height: int, width: int
) -> Bool[Tensor, "m 1 h w"]:
    """Masks of a square each, whose corner is at shares `down` and `across`, in [0, 1], of where it can be."""

    def within(share: Tensor, size: int) -> Tensor:
        corner: Int[Tensor, "m 1"] = (share[:, None] * (size - side + 1)).long().clamp_max(size - side)
        place = torch.arange(size, device=share.device)
        return (place >= corner) & (place < corner + side)

    return (within(down, height)[:, :, None] & within(across, width)[:, None, :])[:, None]


def _signs(lots: Tensor) -> Tensor:
    return torch.where(lots < 0.5, -1.0, 1.0).to(lots)


def _unit(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
    return tensor / torch.linalg.vector_norm(tensor, dim=dims, keepdim=True).clamp_min(TINY)
