"""Projected gradient descent (Madry et al., 2018; the paper's eq. 2), with any objective and in two norms.

EPGD is this attack with `expected_probabilities` (or `expected_loss`), SmoothAdv-PGD with `expected_logits`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.ball import Norm, ball, check_radius
from smoothed.attacks.gradient import input_gradient
from smoothed.attacks.objectives import Objective, one_draw
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import check_inputs, check_labels, check_positive
from smoothed.utils.modes import Classifier, evaluating


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
    restarts: int = 1,
    random_start: bool = True,
    start: Tensor | None = None,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Adversarial inputs after `steps` ascents of the objective inside the ball of radius `eps`.

    The model runs in eval mode and is left as it was found. Randomness of the model is its own; `generator` decides
    the starts.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach if `targeted`.
        eps: radius in pixel units of [0, 1]: of each pixel for `linf`, of the whole image for `l2`. A number, or one an
            image, (N,).
        step_size: likewise; eps / 4 when None, as in the paper.
        steps: gradients taken, the paper's k.
        norm: `linf` (steps along the sign) or `l2` (along the normalised gradient).
        objective: what to ascend (to descend if `targeted`); the cross-entropy of one draw when None.
        targeted: whether `labels` are what the attack wants.
        restarts: how often to start; for each image the end with the highest objective, on a fresh draw, is kept.
        random_start: uniform in the ball, or at the inputs themselves.
        start: images (N, C, H, W) to start from instead; excludes `restarts` > 1.
        generator: on the inputs' device; torch's default one when None. `randomness.Rows` makes starts follow images.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), of the inputs' device and dtype.

    Raises:
        ArgumentError: inputs or labels as `check_inputs` and `check_labels` refuse them, negative eps or step_size,
            no steps, a start of another shape, a model without gradients.
    """
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    eps = check_radius(eps, inputs, "eps")
    step_size = eps / 4 if step_size is None else check_radius(step_size, inputs, "step_size")
    check_positive(steps, "steps")
    check_positive(restarts, "restarts")
    if start is not None and (start.shape != inputs.shape or restarts > 1):
        raise ArgumentError("start", f"one start of shape {tuple(inputs.shape)}", f"{tuple(start.shape)} x {restarts}")
    geometry, objective, sign = ball(norm), objective or one_draw(), -1.0 if targeted else 1.0

    def ascend(images: Tensor) -> Tensor:
        for _ in range(steps):
            direction = geometry.steepest(input_gradient(objective, model, images, labels))
            delta = geometry.project(images + sign * step_size * direction - inputs, eps)
            images = (inputs + delta).clamp(0, 1)
        return images

    def begin() -> Tensor:
        if start is not None:
            return (inputs + geometry.project(start.detach() - inputs, eps)).clamp(0, 1)
        if not random_start:
            return inputs
        return (inputs + geometry.uniform(inputs, eps, generator)).clamp(0, 1)

    with evaluating(model):
        best = ascend(begin())
        if restarts == 1:
            return best
        best_value = _value(objective, model, best, labels) * sign
        for _ in range(restarts - 1):
            images = ascend(begin())
            value = _value(objective, model, images, labels) * sign
            better = value > best_value
            best_value = torch.where(better, value, best_value)
            best = torch.where(better.view(-1, 1, 1, 1), images, best)
        return best


@torch.no_grad()
def _value(objective: Objective, model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    return objective(model, images, labels)
