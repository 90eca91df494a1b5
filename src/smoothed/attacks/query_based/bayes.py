"""BayesOpt attack (Ru et al., ICLR 2020): Bayesian optimisation of a coarse perturbation by a Gaussian process."""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from smoothed.attacks.query_based.gaussian_process import GaussianProcess, condition, fit_hyperparameters
from smoothed.attacks.query_based.queries import Queries
from smoothed.attacks.query_based.query_attack import QueryAttack
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness, uniform_
from smoothed.utils.checks import check_choice, check_generator, check_not_negative, check_positive
from smoothed.utils.modes import Classifier

Upsampling = Literal["nearest", "bilinear"]
UPSAMPLINGS = ("nearest", "bilinear")

# Number of standard deviations that the upper confidence bound adds to the mean.
EXPLORATION = 2.0
# Sign-gradient steps up the bound, in [-1, 1] units, and the number of best candidates that take them.
REFINEMENT_STEPS, NUM_REFINED = (1.0, 0.5, 0.25, 0.125), 4
# Tiles closer than this count as equal.
EQUAL_DISTANCE = 1e-3
# The hyperparameters are fitted again each time the number of values has grown by this factor.
REFIT_FACTOR = 1.25


def bayesian(
    model: Classifier | Queries,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    max_queries: int = 200,
    tile_side: int = 8,
    upsampling: Upsampling = "nearest",
    initial_queries: int = 10,
    candidates: int = 64,
    targeted: bool = False,
    eot_samples: int = 1,
    confidence: float = 0.0,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Return adversarial inputs by Bayesian optimisation in the L-inf ball of radius `eps`, with a few hundred queries.

    The perturbation is eps times a tile of C x S x S numbers in [-1, 1], with S = `tile_side`, upsampled to the image's
    size. For each image, a Gaussian process models the margin as a function of the tile, from the answers so far. The
    first query is the image itself, the next ones are random corners of the cube of tiles. Each later query is the tile
    with the highest upper confidence bound among random changes of the best tile so far, up to entirely new tiles,
    refined by steps up the bound's gradient. An image is done at its first success.

    The memory for an image grows with the square of the number of its queries, the time with the cube. The process
    estimates the noise of the answers, so the attack suits random classifiers; a success against those may be due to
    chance, as in `square`.

    Args:
        model: any callable from images to logits (N, K), or `Queries` of logits or shares.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `targeted`.
        eps: L-inf radius in pixel units of [0, 1].
        max_queries: maximum number of queries per image; the limit of `Queries` applies too.
        tile_side: height and width of the tile, at most those of the images.
        upsampling: `nearest` (squares of constant value) or `bilinear`.
        initial_queries: number of tiles, including the image itself, that are queried before the process is used.
        candidates: number of random tiles among which each query is chosen.
        targeted: whether `labels` are target classes.
        eot_samples: number of answers averaged for each tile; each counts as a query.
        confidence: margin in logits above which an image is done; infinity uses all queries.
        generator: source of random tiles, on the inputs' device; None for torch's default generator. With
            `rng.rows.RowGenerator` the tiles of an image do not depend on its batch.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), with the inputs' device and dtype: for each image the first
        success, or else the query with the highest margin.

    Raises:
        ArgumentError: inputs or labels are invalid (see `check_inputs` and `check_labels`), eps is negative, the
            upsampling is unknown, the tile is larger than the images, the answers are only labels, or there are fewer
            queries than `eot_samples`.
    """
    check_not_negative(eps, "eps")
    check_generator(generator)
    check_choice(upsampling, UPSAMPLINGS, "upsampling")
    for value, name in ((tile_side, "tile_side"), (initial_queries, "initial_queries"), (candidates, "candidates")):
        check_positive(value, name)
    search = QueryAttack(
        "bayesian",
        model,
        inputs,
        labels,
        targeted=targeted,
        max_queries=max_queries,
        eot_samples=eot_samples,
        confidence=confidence,
    )
    inputs = search.inputs
    if tile_side > min(inputs.shape[2:]):
        raise ArgumentError("tile_side", f"at most {min(inputs.shape[2:])}, the smaller side of the images", tile_side)
    size = inputs.shape[1] * tile_side * tile_side
    like = inputs.new_empty(0, dtype=torch.promote_types(inputs.dtype, torch.float32))
    tiles = like.new_zeros(len(inputs), search.max_candidates, size)
    values = like.new_full((len(inputs), search.max_candidates), -torch.inf)
    hyperparameters = like.new_empty(2, len(inputs))  # lengthscale and noise of each process

    def uniforms(*shape: int) -> Tensor:
        return uniform_(like.new_empty(len(inputs), *shape, size), 0, 1, generator)

    def perturbed(rows: Tensor, tiles: Tensor) -> Tensor:
        delta = eps * upsampled(tiles.view(-1, inputs.shape[1], tile_side, tile_side), inputs.shape[2:], upsampling)
        return (inputs[rows] + delta.to(inputs)).clamp(0, 1)

    fit_at = initial_queries
    for asked in range(search.max_candidates):
        rows = search.active
        if not len(rows):
            break
        known = tiles[rows, :asked], values[rows, :asked]
        if 0 < asked < initial_queries:
            tiles[rows, asked] = _corners(uniforms()[rows])
        elif asked:
            if asked >= fit_at:
                hyperparameters[:, rows] = torch.stack(fit_hyperparameters(*known))
                fit_at = math.ceil(REFIT_FACTOR * asked)
            process, _ = condition(*known, *hyperparameters[:, rows])
            best = known[0][torch.arange(len(rows), device=rows.device), known[1].argmax(1)]
            tiles[rows, asked] = proposed(process, best, *uniforms(2, candidates)[rows].unbind(1))
        images = perturbed(rows, tiles[rows, asked])
        values[rows, asked] = search.ask(images[:, None], rows)[:, 0].to(values)
    all_rows = torch.arange(len(inputs), device=inputs.device)
    return search.result(perturbed(all_rows, tiles[all_rows, values.argmax(1)]))


def upsampled(
    tiles: Float[Tensor, "m c side side"], shape: torch.Size, upsampling: Upsampling
) -> Float[Tensor, "m c h w"]:
    """Return tiles of numbers in [-1, 1] upsampled to `shape` (H, W), in the same range."""
    return functional.interpolate(tiles, tuple(shape), mode=upsampling).clamp(-1, 1)


def proposed(
    process: GaussianProcess,
    best: Float[Tensor, "m d"],
    fresh: Float[Tensor, "m q d"],
    selectors: Float[Tensor, "m q d"],
) -> Float[Tensor, "m d"]:
    """Return for each process the candidate in [-1, 1] with the highest upper confidence bound, (M, D).

    A candidate that is known already is replaced by a random corner: a repeated query yields little information and
    makes the process overconfident, so that unexplored tiles would never be tried.

    Args:
        process: Gaussian processes of M images.
        best: tile of each image with the highest value so far.
        fresh: uniform numbers in [0, 1]: new values for coordinates of `best`.
        selectors: uniform numbers in [0, 1] that select the coordinates to replace. The replaced fraction rises from
            candidate to candidate, up to all coordinates.
    """
    fraction = torch.arange(1, fresh.shape[1] + 1, device=fresh.device)[:, None] / fresh.shape[1]
    tiles = torch.where(selectors < fraction, 2 * fresh - 1, best[:, None])
    bounds = _upper_confidence_bound(process, tiles)
    top = bounds.topk(min(NUM_REFINED, tiles.shape[1]), dim=1).indices
    tiles, bounds = _tiles_at(tiles, top), bounds.gather(1, top)
    for step_size in REFINEMENT_STEPS:
        with torch.enable_grad():
            start = tiles.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(_upper_confidence_bound(process, start).sum(), start)
        moved = (tiles + step_size * gradient.sign()).clamp(-1, 1)
        moved_bounds = _upper_confidence_bound(process, moved)
        better = moved_bounds > bounds
        tiles, bounds = torch.where(better[:, :, None], moved, tiles), torch.where(better, moved_bounds, bounds)
    chosen = _tiles_at(tiles, bounds.argmax(1, keepdim=True))
    is_known = torch.cdist(process.points, chosen).amin(1) < EQUAL_DISTANCE
    return torch.where(is_known, _corners(fresh[:, -1]), chosen[:, 0])


def _corners(uniforms: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    """Map numbers in [0, 1] to -1 or 1."""
    return torch.where(uniforms < 0.5, -1.0, 1.0).to(uniforms)


def _upper_confidence_bound(process: GaussianProcess, tiles: Float[Tensor, "m q d"]) -> Float[Tensor, "m q"]:
    mean, deviation = process.posterior(tiles)
    return mean + EXPLORATION * deviation


def _tiles_at(tiles: Float[Tensor, "m q d"], index: Int[Tensor, "m i"]) -> Float[Tensor, "m i d"]:
    return tiles.gather(1, index[:, :, None].expand(-1, -1, tiles.shape[2]))
