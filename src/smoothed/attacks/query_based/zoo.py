"""ZOO (Chen et al., 2017): Adam, one coordinate at a time, on slopes estimated by symmetric differences."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.attacks.ball import Norm, ball
from smoothed.attacks.losses import Loss, margin
from smoothed.attacks.query_based.pursuit import Pursuit
from smoothed.attacks.query_based.queries import Queries
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness, uniform_
from smoothed.utils.checks import check_not_negative, check_positive
from smoothed.utils.modes import Classifier

FIRST_DECAY, SECOND_DECAY, STABILITY = 0.9, 0.999, 1e-8
"""Adam's, as in the paper's algorithm 2."""


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
    num_samples: int = 1,
    confidence: float = 0.0,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Adversarial inputs by coordinate descent inside the ball of radius `eps` (algorithm 2, ZOO-ADAM).

    Each step asks twice about each of `coordinates` random coordinates, moves them all by Adam, projects, and asks
    about the result. The first query is about the image itself. An image is done at its first success; one that has
    none gets its last step.

    The original looks for the smallest L2 distance: it minimises ||delta||^2 + c max(0, -margin), with c found by
    search, and goes on after success. Here the budget is given: the margin is ascended in the ball until the first
    success. `distance_weight=1 / c` adds the distance back, which with `eps=1.0` and `norm="linf"`, no bound at all, is
    the original's objective for one c. In `l2` the coordinates of an image share Adam's second moment, since steps of
    one length in each coordinate are not steepest there. Not here are its attack in a space of reduced dimension, its
    importance sampling, and its tanh space: the image is kept in [0, 1] by clipping.

    Args:
        model: any callable from images to logits (N, K), or `Queries` of logits or shares.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach if `targeted`.
        eps: radius in pixel units of [0, 1]: of each pixel for `linf`, of the whole image for `l2`.
        norm: `linf` or `l2`.
        max_queries: for each image: the smaller of this and the bound of `Queries`; 1,000 where neither is given.
        coordinates: how many, of the C * H * W, a step moves. The last step has what is left.
        step_size: Adam's, in pixel units: how far a coordinate goes the first time. When None, eps (`linf`), so that
            the first step of each goes to the end; for `l2`, so much that all coordinates that can be visited, once
            each, fill the ball.
        difference: how far from the image the two queries are, in pixel units, the paper's h. More for a random
            classifier, whose noise is divided by it.
        distance_weight: of ||delta||^2, which is subtracted from what is ascended.
        loss: of the answers, to ascend (to descend if `targeted`).
        targeted: whether `labels` are what the attack wants.
        num_samples: answers averaged for each point asked about; each is a query.
        confidence: the margin above which an image is done, in units of logits; infinity spends all queries.
        generator: on the inputs' device; torch's default one when None. `randomness.Rows` makes coordinates follow
            images.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), of the inputs' device and dtype.

    Raises:
        ArgumentError: inputs or labels as `check_inputs` and `check_labels` refuse them, negative eps, step_size or
            distance_weight, an unknown norm, no coordinates or difference, answers that are labels alone, fewer queries
            than `num_samples`.
    """
    project = ball(norm).project
    check_not_negative(eps, "eps")
    check_not_negative(distance_weight, "distance_weight")
    check_positive(coordinates, "coordinates")
    if check_not_negative(difference, "difference") == 0:
        raise ArgumentError("difference", "a distance above 0", difference)
    pursuit = Pursuit(
        "zoo",
        model,
        inputs,
        labels,
        loss=loss,
        targeted=targeted,
        max_queries=max_queries,
        num_samples=num_samples,
        confidence=confidence,
    )
    inputs = pursuit.inputs
    visited = min(inputs[0].numel(), max(pursuit.budget // 2, 1))
    length = eps if norm == "linf" else eps / visited**0.5
    length = length if step_size is None else check_not_negative(step_size, "step_size")
    images, adam = inputs.clone(), CoordinateAdam(inputs.flatten(1), length)

    def step(rows: Tensor, places: Tensor) -> None:
        current = images[rows]
        points, distance = probes(current, places, difference)
        forward, backward = pursuit.measure(points, rows).to(inputs).chunk(2, 1)
        slope = (forward - backward) / distance
        slope -= 2 * distance_weight * (current - inputs[rows]).flatten(1).gather(1, places)
        moved = (
            current.flatten(1)
            .scatter_add(1, places, adam.step(slope, places, rows, together=norm == "l2"))
            .view_as(current)
        )
        images[rows] = (inputs[rows] + project(moved - inputs[rows], eps)).clamp(0, 1)

    pursuit.ask(inputs[:, None], pursuit.open)
    left = pursuit.budget - 1
    while left > 2 and len(pursuit.open):
        count = min(coordinates, inputs[0].numel(), (left - 1) // 2)
        lots = uniform_(torch.empty_like(inputs.flatten(1)), 0, 1, generator)
        for rows in pursuit.groups(2 * count):
            step(rows, lots[rows].topk(count, 1).indices)
        pursuit.ask(images[pursuit.open][:, None], pursuit.open)
        left -= 2 * count + 1
    return pursuit.result(images)


def probes(
    images: Float[Tensor, "m c h w"], places: Int[Tensor, "m q"], difference: float
) -> tuple[Float[Tensor, "m p c h w"], Float[Tensor, "m q"]]:
    """Images with one coordinate of `places` higher, then those with it lower, and the distance between the two.

    Clipped to [0, 1], so the difference is one-sided where a coordinate is at an end.
    """
    count = places.shape[1]
    here = images.flatten(1).gather(1, places)
    high, low = (here + difference).clamp(0, 1), (here - difference).clamp(0, 1)
    points = images.flatten(1)[:, None].repeat(1, 2 * count, 1)
    points.scatter_(2, torch.cat([places, places], 1)[:, :, None], torch.cat([high, low], 1)[:, :, None])
    return points.view(len(images), 2 * count, *images.shape[1:]), high - low


class CoordinateAdam:
    """Adam whose every coordinate has moments and a count of steps of its own (algorithm 2).

    Args:
        like: (N, P), a row for each image.
        step_size: how far a coordinate goes the first time, whatever its slope.
    """

    def __init__(self, like: Float[Tensor, "n p"], step_size: float) -> None:
        self.step_size = step_size
        self.first, self.second, self.count = torch.zeros_like(like), torch.zeros_like(like), torch.zeros_like(like)

    def step(
        self,
        slope: Float[Tensor, "m q"],
        places: Int[Tensor, "m q"],
        rows: Int[Tensor, " m"],
        *,
        together: bool = False,
    ) -> Float[Tensor, "m q"]:
        """How far to go up `slope` at the coordinates `places` of the images `rows`.

        `together` puts the mean of the second moments in the place of each coordinate's own.
        """
        at = rows[:, None], places
        self.count[at] += 1
        self.first[at] = FIRST_DECAY * self.first[at] + (1 - FIRST_DECAY) * slope
        self.second[at] = SECOND_DECAY * self.second[at] + (1 - SECOND_DECAY) * slope.square()
        first = self.first[at] / (1 - FIRST_DECAY ** self.count[at])
        second = self.second[at] / (1 - SECOND_DECAY ** self.count[at])
        second = second.mean(1, keepdim=True) if together else second
        return self.step_size * first / (second.sqrt() + STABILITY)
