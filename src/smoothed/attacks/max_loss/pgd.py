"""Projected gradient descent (Madry et al., 2018; the paper's eq. 2), for any objective, in L-inf and L2.

EPGD is this attack with `expected_probabilities` (or `expected_loss`), SmoothAdv-PGD with `expected_logits`. With
`momentum` it is the attack of the paper's code, which follows the sum of all gradients so far, or MI-FGSM (Dong et
al., 2018).
"""

from collections import deque
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.ball import Norm, ball, check_radius
from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.objectives import Objective, objective_or_default
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import (
    check_callable,
    check_flag,
    check_generator,
    check_inputs,
    check_labels,
    check_not_negative,
    check_positive,
)
from smoothed.utils.modes import Classifier, eval_mode


def pgd(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    step_size: float | Tensor | None = None,
    steps: int = 7,
    norm: Norm = "linf",
    objective: Objective | None = None,
    targeted: bool = False,
    momentum: float = 0.0,
    unit_gradients: bool = False,
    restarts: int = 1,
    random_start: bool = True,
    start: Tensor | None = None,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Return adversarial inputs after `steps` projected gradient steps inside the ball of radius `eps`.

    Each step follows the direction of G_t = momentum * G_(t-1) + g_t, where g_t is the gradient at the present images
    and G_0 = 0. Three cases have names:

    - `momentum=0` is PGD (Madry et al., 2018; eq. 2), which follows the present gradient alone.
    - `momentum=1` is the attack of the paper's code. The code does not clear the gradient of the attacked images
      between steps, so each step follows the sum of all gradients so far; on a random model, this sum averages the
      noise. Step size, start and clamping are the defaults here: eps / 4, uniform in the L-inf ball (in the paper: at
      the inputs), images in [0, 1] and input noise not clipped. The code takes 7 steps on ResNet-20 and 10 on
      Wide-ResNet. It also trains with this attack, and its EPGD is the same attack on `expected_loss`.
    - `momentum=1, unit_gradients=True, random_start=False, step_size=eps / steps` is MI-FGSM (Dong et al., 2018,
      algorithm 1) with the authors' decay.

    The model runs in eval mode, and its modes are restored afterwards. `generator` determines the starts, not the
    model's own noise.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `targeted`.
        eps: radius in pixel units of [0, 1], of each pixel for `linf` and of the whole image for `l2`: one number, or
            one radius per image, (N,).
        step_size: length of a step in pixel units of [0, 1], as `eps`; None for eps / 4, as in the paper.
        steps: number of gradient steps, the paper's k.
        norm: `linf` (steps along the sign of the gradient) or `l2` (steps along the normalised gradient).
        objective: objective to ascend, or to descend if `targeted`; None for the cross-entropy of one draw.
        targeted: whether `labels` are target classes.
        momentum: factor, at least 0, on the sum of the earlier gradients at each step (the decay of MI-FGSM).
        unit_gradients: whether the gradient of each image is divided by its L1 norm before it is added, so that all
            steps have the same weight. It has no effect without momentum.
        restarts: number of runs; for each image the run with the highest objective, on a fresh evaluation, is kept.
        random_start: whether to start uniformly in the ball, rather than at the inputs.
        start: images (N, C, H, W) to start from, instead of `random_start`; only with one restart.
        generator: source of the random starts, on the inputs' device; None for torch's default generator. With
            `rng.rows.RowGenerator` the start of an image does not depend on its batch.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), with the inputs' device and dtype.

    Raises:
        ArgumentError: inputs or labels are invalid (see `check_inputs` and `check_labels`), eps, step_size or momentum
            is negative, `steps` or `restarts` is below 1, `start` has another shape or is used with restarts, or the
            model has no gradient.
    """
    check_callable(model, "model")
    inputs = check_inputs(inputs).detach()
    check_positive(restarts, "restarts")
    if start is not None:
        _check_start(start, inputs, restarts)
    objective, sign = objective_or_default(objective), -1.0 if targeted else 1.0

    def run() -> Tensor:
        images = pgd_steps(
            model,
            inputs,
            labels,
            eps=eps,
            step_size=step_size,
            steps=steps,
            norm=norm,
            objective=objective,
            targeted=targeted,
            momentum=momentum,
            unit_gradients=unit_gradients,
            random_start=random_start,
            start=start,
            generator=generator,
        )
        return deque(images, maxlen=1)[0]

    with eval_mode(model):
        best = run()
        if restarts == 1:
            return best
        best_value = _objective_values(objective, model, best, labels) * sign
        for _ in range(restarts - 1):
            images = run()
            value = _objective_values(objective, model, images, labels) * sign
            better = value > best_value
            best_value = torch.where(better, value, best_value)
            best = torch.where(better.view(-1, 1, 1, 1), images, best)
        return best


def pgd_steps(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    step_size: float | Tensor | None = None,
    steps: int = 7,
    norm: Norm = "linf",
    objective: Objective | None = None,
    targeted: bool = False,
    momentum: float = 0.0,
    unit_gradients: bool = False,
    random_start: bool = True,
    start: Tensor | None = None,
    generator: Randomness = None,
) -> Iterator[Float[Tensor, "n c h w"]]:
    """Yield the images after each step of one run of `pgd`; the last of them are what `pgd` returns.

    The arguments and errors are those of `pgd`; errors are raised at the first step. The model runs in its present
    mode, which the caller sets.

    Yields:
        Images in [0, 1] inside the ball, (N, C, H, W), `steps` times.
    """
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    eps = check_radius(eps, inputs, "eps")
    step_size = eps / 4 if step_size is None else check_radius(step_size, inputs, "step_size")
    check_positive(steps, "steps")
    check_not_negative(momentum, "momentum")
    for flag, name in ((targeted, "targeted"), (unit_gradients, "unit_gradients"), (random_start, "random_start")):
        check_flag(flag, name)
    check_generator(generator)
    geometry, objective, sign = ball(norm), objective_or_default(objective), -1.0 if targeted else 1.0
    if start is not None:
        _check_start(start, inputs, restarts=1)
        images = (inputs + geometry.project(start.detach() - inputs, eps)).clamp(0, 1)
    elif random_start:
        images = (inputs + geometry.uniform(inputs, eps, generator)).clamp(0, 1)
    else:
        images = inputs
    accumulated = torch.zeros_like(images)
    for _ in range(steps):
        gradient = input_gradient(objective, model, images, labels)
        gradient = _unit_l1(gradient) if unit_gradients else gradient
        accumulated = momentum * accumulated + gradient if momentum > 0 else gradient
        direction = geometry.steepest(accumulated)
        delta = geometry.project(images + sign * step_size * direction - inputs, eps)
        images = (inputs + delta).clamp(0, 1)
        yield images


def _check_start(start: object, inputs: Tensor, restarts: int) -> None:
    if not isinstance(start, Tensor) or not start.is_floating_point():
        got = start.dtype if isinstance(start, Tensor) else type(start).__name__
        raise ArgumentError("start", "a float tensor of images", got)
    if start.shape != inputs.shape or restarts > 1:
        got = f"shape {tuple(start.shape)} and restarts={restarts}"
        raise ArgumentError("start", f"shape {tuple(inputs.shape)} and restarts=1", got)


def _unit_l1(gradient: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Divide the gradient of each image by its L1 norm; a gradient of 0 stays 0."""
    norm = gradient.flatten(1).norm(p=1, dim=1).view(-1, 1, 1, 1)
    return gradient / norm.clamp_min(torch.finfo(norm.dtype).tiny)


@torch.no_grad()
def _objective_values(objective: Objective, model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    return objective(model, images, labels)
