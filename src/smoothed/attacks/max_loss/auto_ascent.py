"""One ascent of Auto-PGD (Croce and Hein, 2020, algorithm 1), with early exit image by image."""

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
from smoothed.utils.checks import check_inputs, check_labels
from smoothed.utils.modes import Classifier

# The paper's alpha: the share of the new step in a move; the rest goes on with the last move.
NEW_STEP = 0.75

Rows = Tensor | slice
"""Numbers of some of the images, or all of them."""


class Points(NamedTuple):
    """Images (N, C, H, W), their values (N,), infinite where nothing is left to do, and gradients (N, C, H, W)."""

    images: Tensor
    values: Tensor
    gradients: Tensor

    @property
    def done(self) -> Bool[Tensor, " n"]:
        """Where nothing is left to do, (N,)."""
        return self.values.isposinf()


def better(new: Points, old: Points) -> Points:
    """The points with the higher values, the old ones where equal."""
    return _where(new.values > old.values, new, old)


def _where(condition: Bool[Tensor, " n"], new: Points, old: Points) -> Points:
    wide = condition.view(-1, 1, 1, 1)
    return Points(*(torch.where(wide if a.ndim == 4 else condition, a, b) for a, b in zip(new, old, strict=True)))


@dataclass(frozen=True)
class Problem:
    """What is ascended, and within which bounds.

    Attributes:
        model: any callable from images to logits (N, K).
        inputs: images in [0, 1], (N, C, H, W).
        labels: classes (N,).
        eps: radii (N, 1, 1, 1).
        geometry: of the ball.
        objective: from some of the rows to the objective of these.
        stop: whether images of the wrong class are done.
        targeted: whether to descend, and `labels` is the class that ends the work.
    """

    model: Classifier
    inputs: Tensor
    labels: Tensor
    eps: Tensor
    geometry: Ball
    objective: Callable[[Rows], Objective]
    stop: bool = False
    targeted: bool = False

    def start(self, generator: Randomness, *, random: bool) -> Tensor:
        """Uniform in the ball, or the inputs themselves. Starts are drawn for all images, whichever are done."""
        if not random:
            return self.inputs
        return (self.inputs + self.geometry.uniform(self.inputs, self.eps, generator)).clamp(0, 1)

    def project(self, images: Tensor) -> Tensor:
        """The images brought back into the ball and [0, 1]."""
        return (self.inputs + self.geometry.project(images - self.inputs, self.eps)).clamp(0, 1)

    def evaluate(self, images: Tensor, done: Bool[Tensor, " n"], *, with_gradient: bool = True) -> Points:
        """The points at `images`, by one evaluation of the objective; with `stop`, of those that are not `done`."""
        if not self.stop:
            return Points(images, *self._differentiate(self.model, images, slice(None), with_gradient=with_gradient))
        rows, model = (~done).nonzero()[:, 0], Recorded(self.model)
        gradients = torch.zeros_like(images)
        if not len(rows):
            return Points(images, images.new_full(done.shape, torch.inf), gradients)
        value, gradients[rows] = self._differentiate(model, images, rows, with_gradient=with_gradient)
        values = value.new_full(done.shape, torch.inf)
        ended = (model.logits.argmax(1) == self.labels[rows]) == self.targeted
        values[rows] = value.masked_fill(ended, torch.inf)
        return Points(images, values, gradients)

    def _differentiate(
        self, model: Classifier, images: Tensor, rows: Rows, *, with_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """What to ascend at the images of `rows`, (M,), and its gradient (M, C, H, W); zeros where not asked for."""
        sign = -1 if self.targeted else 1
        # The tensor itself where it is all of it: the bounds of labels are looked up once a tensor.
        labels = self.labels if isinstance(rows, slice) else self.labels[rows]
        with torch.set_grad_enabled(with_gradient):
            asked = images[rows].detach().requires_grad_(with_gradient)
            value = sign * self.objective(rows)(model, asked, labels)
            gradient = differentiate(value, asked) if with_gradient else torch.zeros_like(asked)
        return value.detach(), gradient


def bounded(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    norm: Norm,
    objective: Callable[[Rows], Objective],
    stop: bool,
    targeted: bool = False,
) -> Problem:
    """A problem from the arguments of an attack.

    Raises:
        ArgumentError: inputs or labels as `check_inputs` and `check_labels` refuse them, a negative eps, another norm.
    """
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    radii = torch.as_tensor(check_radius(eps, inputs, "eps"), dtype=inputs.dtype, device=inputs.device)
    radii = radii.expand(len(inputs), 1, 1, 1)
    return Problem(model, inputs, labels, radii, ball(norm), objective, stop=stop, targeted=targeted)


def ascend(problem: Problem, start: Tensor, steps: int, done: Bool[Tensor, " n"]) -> Points:
    """The best points on the way of `steps` steps from `start`.

    Args:
        problem: what to ascend.
        start: images inside the bounds, (N, C, H, W).
        steps: the paper's N_iter; the first is 2 eps long. The last point's value alone is looked at, not its gradient.
        done: images (N,) that need no work, if the problem is to `stop`.

    Returns:
        The points of the highest values met, infinite where done.
    """
    previous, now = start, problem.evaluate(start, done)
    best, schedule = now, Halving(2 * problem.eps, now.values, steps)
    for step in range(1, steps + 1):
        if problem.stop and best.done.all():
            break
        images = problem.project(now.images + schedule.size * problem.geometry.steepest(now.gradients))
        if step > 1:
            move = NEW_STEP * (images - now.images) + (1 - NEW_STEP) * (now.images - previous)
            images = problem.project(now.images + move)
        previous, before = now.images, now.values
        now = problem.evaluate(images, best.done, with_gradient=step < steps)
        best = better(now, best)
        halved = schedule.after(step, now.values > before, best.values)
        now = now if halved is None else _where(halved, best, now)
    return best
