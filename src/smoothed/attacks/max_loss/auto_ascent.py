"""One ascent of Auto-PGD (Croce and Hein, 2020, algorithm 1), with early stopping of single images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from smoothed.attacks.ball import Ball, Norm, ball, check_radius
from smoothed.attacks.max_loss.halving import Halving
from smoothed.attacks.max_loss.recorded import Recorded
from smoothed.attacks.objectives import Objective
from smoothed.attacks.streaming import differentiate
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import check_callable, check_flag, check_inputs, check_labels, check_values
from smoothed.utils.modes import Classifier

# The paper's alpha: weight of the new step in a move; the remaining weight is on the previous move (momentum).
NEW_STEP_WEIGHT = 0.75

Rows = Tensor | slice
"""Indices of some of the images, (M,), or a slice of all of them."""


class Points(NamedTuple):
    """Images (N, C, H, W), their objective values (N,), infinite if done, and gradients (N, C, H, W)."""

    images: Tensor
    values: Tensor
    gradients: Tensor

    @property
    def done(self) -> Bool[Tensor, " n"]:
        """Mask of the images that need no more work, (N,)."""
        return self.values.isposinf()


def imagewise_best(new: Points, old: Points) -> Points:
    """Return for each image the point with the higher value, and the old point if both are equal."""
    return _where(new.values > old.values, new, old)


def _where(condition: Bool[Tensor, " n"], new: Points, old: Points) -> Points:
    per_image = condition.view(-1, 1, 1, 1)
    return Points(*(torch.where(per_image if a.ndim == 4 else condition, a, b) for a, b in zip(new, old, strict=True)))


@dataclass(frozen=True)
class Problem:
    """The objective to ascend, and the bounds of the images.

    Attributes:
        model: any callable from images to logits (N, K).
        inputs: images in [0, 1], (N, C, H, W).
        labels: true or target classes (N,).
        eps: radii in pixel units of [0, 1], (N, 1, 1, 1).
        geometry: operations on the ball.
        objective: maps the indices of some images to the objective of these images.
        early_stop: whether images are done as soon as they are misclassified (classified as `labels` if `targeted`).
        targeted: whether to descend the objective, with `labels` as target classes.
    """

    model: Classifier
    inputs: Tensor
    labels: Tensor
    eps: Tensor
    geometry: Ball
    objective: Callable[[Rows], Objective]
    early_stop: bool = False
    targeted: bool = False

    def start(self, generator: Randomness, *, random: bool) -> Tensor:
        """Return random images in the ball, or the inputs. Random numbers are drawn even for images that are done."""
        if not random:
            return self.inputs
        return (self.inputs + self.geometry.uniform(self.inputs, self.eps, generator)).clamp(0, 1)

    def project(self, images: Tensor) -> Tensor:
        """Project images onto the ball and [0, 1]."""
        return (self.inputs + self.geometry.project(images - self.inputs, self.eps)).clamp(0, 1)

    def evaluate(self, images: Tensor, done: Bool[Tensor, " n"], *, with_gradient: bool = True) -> Points:
        """Evaluate the objective once at `images`; with `early_stop`, only for the images that are not `done`."""
        if not self.early_stop:
            return Points(images, *self._differentiate(self.model, images, slice(None), with_gradient=with_gradient))
        rows, model = (~done).nonzero()[:, 0], Recorded(self.model)
        gradients = torch.zeros_like(images)
        if not len(rows):
            return Points(images, images.new_full(done.shape, torch.inf), gradients)
        value, gradients[rows] = self._differentiate(model, images, rows, with_gradient=with_gradient)
        values = value.new_full(done.shape, torch.inf)
        stopped = (model.logits.argmax(1) == self.labels[rows]) == self.targeted
        values[rows] = value.masked_fill(stopped, torch.inf)
        return Points(images, values, gradients)

    def _differentiate(
        self, model: Classifier, images: Tensor, rows: Rows, *, with_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Return values to ascend at the images of `rows`, (M,), and gradients (M, C, H, W) or zeros."""
        sign = -1 if self.targeted else 1
        # Avoid a copy of all labels: `check_classes` caches the bounds of each label tensor.
        labels = self.labels if isinstance(rows, slice) else self.labels[rows]
        with torch.set_grad_enabled(with_gradient):
            selected = images[rows].detach().requires_grad_(with_gradient)
            value = sign * check_values(self.objective(rows)(model, selected, labels), len(selected), "objective")
            gradient = differentiate(value, selected) if with_gradient else torch.zeros_like(selected)
        return value.detach(), gradient


def make_problem(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    norm: Norm,
    objective: Callable[[Rows], Objective],
    early_stop: bool,
    targeted: bool = False,
) -> Problem:
    """Check the arguments of an attack, and return the problem that they describe.

    Raises:
        ArgumentError: inputs or labels are invalid (see `check_inputs` and `check_labels`), eps is negative, or the
            norm is unknown.
    """
    check_callable(model, "model")
    check_flag(early_stop, "early_stop")
    check_flag(targeted, "targeted")
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    radii = torch.as_tensor(check_radius(eps, inputs, "eps"), dtype=inputs.dtype, device=inputs.device)
    radii = radii.expand(len(inputs), 1, 1, 1)
    return Problem(model, inputs, labels, radii, ball(norm), objective, early_stop=early_stop, targeted=targeted)


def ascend(problem: Problem, start: Tensor, steps: int, done: Bool[Tensor, " n"]) -> Points:
    """Take `steps` steps of Auto-PGD from `start`, and return the points with the highest values.

    Args:
        problem: objective and bounds.
        start: images inside the bounds, (N, C, H, W).
        steps: number of steps, the paper's N_iter. The first has length 2 eps. At the last point only the value is
            computed, without gradient.
        done: mask (N,) of images that need no work, if the problem uses `early_stop`.

    Returns:
        For each image, the point with the highest value; the value is infinite if the image is done.
    """
    previous_images, current = start, problem.evaluate(start, done)
    best, schedule = current, Halving(2 * problem.eps, current.values, steps)
    for step in range(1, steps + 1):
        if problem.early_stop and best.done.all():
            break
        images = problem.project(current.images + schedule.size * problem.geometry.steepest(current.gradients))
        if step > 1:
            new_step, previous_step = images - current.images, current.images - previous_images
            move = NEW_STEP_WEIGHT * new_step + (1 - NEW_STEP_WEIGHT) * previous_step
            images = problem.project(current.images + move)
        previous_images, previous_values = current.images, current.values
        current = problem.evaluate(images, best.done, with_gradient=step < steps)
        best = imagewise_best(current, best)
        halved = schedule.after(step, current.values > previous_values, best.values)
        current = current if halved is None else _where(halved, best, current)
    return best
