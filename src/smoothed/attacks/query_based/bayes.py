"""The BayesOpt attack (Ru et al., ICLR 2020): a Gaussian process of few coarse pixels says what to ask next."""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from smoothed.attacks.query_based.gaussian_process import GaussianProcess, condition, most_likely
from smoothed.attacks.query_based.pursuit import Pursuit
from smoothed.attacks.query_based.queries import Queries
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness, uniform_
from smoothed.utils.checks import check_choice, check_not_negative, check_positive
from smoothed.utils.modes import Classifier

Upsampling = Literal["nearest", "bilinear"]
UPSAMPLINGS = ("nearest", "bilinear")

# The upper confidence bound is the mean plus so many deviations.
EXPLORATION = 2.0
# Steps up the bound's gradient, as shares of half the cube's side, from this many of the best candidates.
CLIMB, CLIMBERS = (1.0, 0.5, 0.25, 0.125), 4
# Places this close are the same.
SAME = 1e-3
# The process is fitted anew where the number of values has grown by this factor.
REFIT = 1.25


def bayesian(
    model: Classifier | Queries,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    max_queries: int = 200,
    side: int = 8,
    upsampling: Upsampling = "nearest",
    initial: int = 10,
    candidates: int = 64,
    targeted: bool = False,
    num_samples: int = 1,
    confidence: float = 0.0,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Adversarial inputs by Bayesian optimisation inside the L-inf ball of radius `eps`, for a few hundred queries.

    The perturbation is eps times a tile of C x side x side numbers in [-1, 1], upsampled to the image. Each image has a
    Gaussian process of the answers' margin over such tiles, which is fitted to all that was asked so far. The first
    query is about the image itself, some more about random corners of the cube of tiles; then each is about the tile
    of the highest upper confidence bound that is found: the best random tiles and random changes of the best tile so
    far, moved up the bound's gradient. An image is done at its first success.

    Time and memory of an image grow with the square of its queries, and the time with the cube in the end; the process
    learns how noisy answers are, so it suits random classifiers. Of those, a success may be luck, as in `square`.
    On 32 held-out images of CIFAR-10 and the bundled network, at 200 queries, no other side (4, 6, 12), number of
    candidates (32, 128) or weight of the bound's deviation (1, 4) than the default broke more of them.

    Args:
        model: any callable from images to logits (N, K), or `Queries` of logits or shares.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach if `targeted`.
        eps: L-inf radius in pixel units of [0, 1].
        max_queries: for each image: the smaller of this and the bound of `Queries`.
        side: of the tile; at most that of the images.
        upsampling: `nearest` makes squares of one value, `bilinear` slopes.
        initial: tiles asked about before the process is, the image itself among them.
        candidates: random tiles whose bound is looked at for each query.
        targeted: whether `labels` are what the attack wants.
        num_samples: answers averaged for each tile; each is a query.
        confidence: the margin above which an image is done, in units of logits; infinity spends all queries.
        generator: on the inputs' device; torch's default one when None. `randomness.Rows` makes tiles follow images.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), of the inputs' device and dtype: of each the first success, or
        the one with the highest answer.

    Raises:
        ArgumentError: inputs or labels as `check_inputs` and `check_labels` refuse them, negative eps, an unknown
            upsampling, a tile larger than the images, answers that are labels alone, fewer queries than `num_samples`.
    """
    check_not_negative(eps, "eps")
    check_choice(upsampling, UPSAMPLINGS, "upsampling")
    for value, name in ((side, "side"), (initial, "initial"), (candidates, "candidates")):
        check_positive(value, name)
    pursuit = Pursuit(
        "bayesian",
        model,
        inputs,
        labels,
        targeted=targeted,
        max_queries=max_queries,
        num_samples=num_samples,
        confidence=confidence,
    )
    inputs = pursuit.inputs
    if side > min(inputs.shape[2:]):
        raise ArgumentError("side", f"at most {min(inputs.shape[2:])}, that of the images", side)
    size = inputs.shape[1] * side * side
    like = inputs.new_empty(0, dtype=torch.promote_types(inputs.dtype, torch.float32))
    places = like.new_zeros(len(inputs), pursuit.budget, size)
    values = like.new_full((len(inputs), pursuit.budget), -torch.inf)
    scales = like.new_empty(2, len(inputs))

    def lots(*shape: int) -> Tensor:
        return uniform_(like.new_empty(len(inputs), *shape, size), 0, 1, generator)

    def shown(rows: Tensor, tiles: Tensor) -> Tensor:
        delta = eps * upsampled(tiles.view(-1, inputs.shape[1], side, side), inputs.shape[2:], upsampling)
        return (inputs[rows] + delta.to(inputs)).clamp(0, 1)

    fit_at = initial
    for asked in range(pursuit.budget):
        rows = pursuit.open
        if not len(rows):
            break
        known = places[rows, :asked], values[rows, :asked]
        if 0 < asked < initial:
            places[rows, asked] = _corners(lots()[rows])
        elif asked:
            if asked >= fit_at:
                scales[:, rows] = torch.stack(most_likely(*known))
                fit_at = math.ceil(REFIT * asked)
            process, _ = condition(*known, *scales[:, rows])
            best = known[0][torch.arange(len(rows), device=rows.device), known[1].argmax(1)]
            places[rows, asked] = proposed(process, best, *lots(2, candidates)[rows].unbind(1))
        images = shown(rows, places[rows, asked])
        values[rows, asked] = pursuit.ask(images[:, None], rows)[:, 0].to(values)
    every = torch.arange(len(inputs), device=inputs.device)
    return pursuit.result(shown(every, places[every, values.argmax(1)]))


def upsampled(
    tiles: Float[Tensor, "m c side side"], shape: torch.Size, upsampling: Upsampling
) -> Float[Tensor, "m c h w"]:
    """Tiles of numbers in [-1, 1], as large as images of `shape` (H, W) and in the same range."""
    return functional.interpolate(tiles, tuple(shape), mode=upsampling).clamp(-1, 1)


def proposed(
    process: GaussianProcess,
    best: Float[Tensor, "m d"],
    fresh: Float[Tensor, "m q d"],
    lots: Float[Tensor, "m q d"],
) -> Float[Tensor, "m d"]:
    """The places in [-1, 1] of the highest upper confidence bound that is found, (M, D); random corners for known ones.

    To ask again tells little, and makes the process sure of itself: what no place has shown so far would stay unseen.

    Args:
        process: of M images.
        best: the place of each with the highest value so far.
        fresh: uniform in [0, 1]: what replaces coordinates of `best`.
        lots: uniform in [0, 1]: which do. From candidate to candidate it is a larger share, up to all.
    """
    share = torch.arange(1, fresh.shape[1] + 1, device=fresh.device)[:, None] / fresh.shape[1]
    places = torch.where(lots < share, 2 * fresh - 1, best[:, None])
    bounds = _bound(process, places)
    top = bounds.topk(min(CLIMBERS, places.shape[1]), dim=1).indices
    places, bounds = _at(places, top), bounds.gather(1, top)
    for size in CLIMB:
        with torch.enable_grad():
            start = places.detach().requires_grad_()
            (slope,) = torch.autograd.grad(_bound(process, start).sum(), start)
        moved = (places + size * slope.sign()).clamp(-1, 1)
        reached = _bound(process, moved)
        better = reached > bounds
        places, bounds = torch.where(better[:, :, None], moved, places), torch.where(better, reached, bounds)
    chosen = _at(places, bounds.argmax(1, keepdim=True))
    again = torch.cdist(process.places, chosen).amin(1) < SAME
    return torch.where(again, _corners(fresh[:, -1]), chosen[:, 0])


def _corners(lots: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    """Numbers in [0, 1] as -1 or 1."""
    return torch.where(lots < 0.5, -1.0, 1.0).to(lots)


def _bound(process: GaussianProcess, places: Float[Tensor, "m q d"]) -> Float[Tensor, "m q"]:
    mean, deviation = process.at(places)
    return mean + EXPLORATION * deviation


def _at(places: Float[Tensor, "m q d"], index: Int[Tensor, "m i"]) -> Float[Tensor, "m i d"]:
    return places.gather(1, index[:, :, None].expand(-1, -1, places.shape[2]))
