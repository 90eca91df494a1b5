"""ZOO (Chen et al., 2017): Adam on single coordinates, with gradients estimated by symmetric differences."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.attacks.ball import Norm, ball
from smoothed.attacks.losses import Loss, margin
from smoothed.attacks.query_based.queries import Queries
from smoothed.attacks.query_based.query_attack import QueryAttack
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness, uniform_
from smoothed.utils.checks import check_generator, check_not_negative, check_positive
from smoothed.utils.modes import Classifier

BETA_1, BETA_2, ADAM_EPSILON = 0.9, 0.999, 1e-8
"""Adam's constants, as in the paper's algorithm 2."""


def zoo(
    model: Classifier | Queries,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    max_queries: int | None = None,
    coordinates: int = 128,
    step_size: float | None = None,
    difference: float = 1e-3,
    distance_weight: float = 0.0,
    loss: Loss = margin,
    targeted: bool = False,
    eot_samples: int = 1,
    confidence: float = 0.0,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Return adversarial inputs by coordinate descent in the ball of radius `eps` (algorithm 2, ZOO-ADAM).

    Each step makes two queries for each of `coordinates` random coordinates, moves these coordinates by Adam, projects,
    and queries the result. The first query is the image itself. An image is done at its first success; without a
    success its last iterate is returned.

    The original attack searches for the smallest L2 distance: it minimises ||delta||^2 + c max(0, -margin), searches
    for c, and continues after a success. Here the radius is given, and the margin is ascended in the ball until the
    first success. `distance_weight=1 / c` adds the distance again; with `eps=1.0` and `norm="linf"`, which do not bound
    the perturbation, the objective is the original's for one c. For `l2`, the coordinates of an image share Adam's
    second moment, since steps of equal length in each coordinate are not steepest in L2. The original's dimension
    reduction, importance sampling and tanh space are not implemented: images are kept in [0, 1] by clipping.

    Args:
        model: any callable from images to logits (N, K), or `Queries` of logits or shares.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `targeted`.
        eps: radius in pixel units of [0, 1], of each pixel for `linf` and of the whole image for `l2`.
        norm: `linf` or `l2`.
        max_queries: maximum number of queries per image; the limit of `Queries` applies too. None for 1,000 if
            `Queries` sets no limit.
        coordinates: number of the C * H * W coordinates that a step moves. The last step uses the remaining queries.
        step_size: Adam's learning rate in pixel units of [0, 1]: length of the first move of a coordinate. None for eps
            (`linf`), so that the first move reaches the boundary; for `l2`, such that moving once each coordinate that
            can be visited fills the ball.
        difference: distance of the two queries of a coordinate from the image, in pixel units of [0, 1], the paper's h.
            Larger values suit a random classifier, whose noise is divided by it.
        distance_weight: weight of ||delta||^2, which is subtracted from the loss.
        loss: loss of the answers to ascend, or to descend if `targeted`.
        targeted: whether `labels` are target classes.
        eot_samples: number of answers averaged for each queried image; each counts as a query.
        confidence: margin in logits above which an image is done; infinity uses all queries.
        generator: source of random coordinates, on the inputs' device; None for torch's default generator. With
            `rng.rows.RowGenerator` the coordinates of an image do not depend on its batch.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), with the inputs' device and dtype.

    Raises:
        ArgumentError: inputs or labels are invalid (see `check_inputs` and `check_labels`), eps, step_size or
            distance_weight is negative, the norm is unknown, `coordinates` is below 1, `difference` is not positive,
            the answers are only labels, or there are fewer queries than `eot_samples`.
    """
    project = ball(norm).project
    check_not_negative(eps, "eps")
    check_generator(generator)
    check_not_negative(distance_weight, "distance_weight")
    check_positive(coordinates, "coordinates")
    if check_not_negative(difference, "difference") == 0:
        raise ArgumentError("difference", "a distance above 0", difference)
    search = QueryAttack(
        "zoo",
        model,
        inputs,
        labels,
        loss=loss,
        targeted=targeted,
        max_queries=max_queries,
        eot_samples=eot_samples,
        confidence=confidence,
    )
    inputs = search.inputs
    visited = min(inputs[0].numel(), max(search.max_candidates // 2, 1))
    length = eps if norm == "linf" else eps / visited**0.5
    length = length if step_size is None else check_not_negative(step_size, "step_size")
    images, adam = inputs.clone(), CoordinateAdam(inputs.flatten(1), length)

    def step(rows: Tensor, indices: Tensor) -> None:
        current = images[rows]
        points, distance = probes(current, indices, difference)
        forward, backward = search.measure(points, rows).to(inputs).chunk(2, 1)
        gradient = (forward - backward) / distance
        gradient -= 2 * distance_weight * (current - inputs[rows]).flatten(1).gather(1, indices)
        moved = (
            current.flatten(1)
            .scatter_add(1, indices, adam.step(gradient, indices, rows, shared_scale=norm == "l2"))
            .view_as(current)
        )
        images[rows] = (inputs[rows] + project(moved - inputs[rows], eps)).clamp(0, 1)

    search.ask(inputs[:, None], search.active)
    remaining = search.max_candidates - 1
    while remaining > 2 and len(search.active):
        count = min(coordinates, inputs[0].numel(), (remaining - 1) // 2)
        uniforms = uniform_(torch.empty_like(inputs.flatten(1)), 0, 1, generator)
        for rows in search.batches(2 * count):
            step(rows, uniforms[rows].topk(count, 1).indices)
        search.ask(images[search.active][:, None], search.active)
        remaining -= 2 * count + 1
    return search.result(images)


def probes(
    images: Float[Tensor, "m c h w"], indices: Int[Tensor, "m q"], difference: float
) -> tuple[Float[Tensor, "m p c h w"], Float[Tensor, "m q"]]:
    """Return the images with each coordinate of `indices` raised, then lowered, and the distances between these values.

    Values are clipped to [0, 1], so the difference is one-sided for a coordinate at a boundary.

    Args:
        images: images in [0, 1], (M, C, H, W).
        indices: indices of Q coordinates per image, (M, Q).
        difference: distance by which a coordinate is raised and lowered, in pixel units of [0, 1].

    Returns:
        The images, (M, 2 Q, C, H, W), and the distances, (M, Q).
    """
    count = indices.shape[1]
    values = images.flatten(1).gather(1, indices)
    high, low = (values + difference).clamp(0, 1), (values - difference).clamp(0, 1)
    points = images.flatten(1)[:, None].repeat(1, 2 * count, 1)
    points.scatter_(2, torch.cat([indices, indices], 1)[:, :, None], torch.cat([high, low], 1)[:, :, None])
    return points.view(len(images), 2 * count, *images.shape[1:]), high - low


class CoordinateAdam:
    """Adam with separate moments and step counts for each coordinate (algorithm 2).

    Args:
        like: a tensor (N, P) that gives the shape, with one row per image.
        step_size: length of the first move of a coordinate, whatever its gradient.
    """

    def __init__(self, like: Float[Tensor, "n p"], step_size: float) -> None:
        self.step_size = step_size
        self.first, self.second, self.count = torch.zeros_like(like), torch.zeros_like(like), torch.zeros_like(like)

    def step(
        self,
        gradient: Float[Tensor, "m q"],
        indices: Int[Tensor, "m q"],
        rows: Int[Tensor, " m"],
        *,
        shared_scale: bool = False,
    ) -> Float[Tensor, "m q"]:
        """Return the moves up the gradient at the coordinates `indices` of the images `rows`, (M, Q).

        With `shared_scale`, the mean of the second moments replaces each coordinate's own.
        """
        at = rows[:, None], indices
        self.count[at] += 1
        self.first[at] = BETA_1 * self.first[at] + (1 - BETA_1) * gradient
        self.second[at] = BETA_2 * self.second[at] + (1 - BETA_2) * gradient.square()
        first = self.first[at] / (1 - BETA_1 ** self.count[at])
        second = self.second[at] / (1 - BETA_2 ** self.count[at])
        second = second.mean(1, keepdim=True) if shared_scale else second
        return self.step_size * first / (second.sqrt() + ADAM_EPSILON)
