"""DDN: the direction and the norm of the perturbation, decoupled (Rony et al., CVPR 2019)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.ball import ball
from smoothed.attacks.losses import cross_entropy
from smoothed.attacks.min_norm.minimum import Search, norms, wide
from smoothed.attacks.objectives import Draws, one_draw
from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_fraction, check_not_negative, check_positive
from smoothed.utils.modes import Classifier, evaluating

# The step's length falls from the first to the second along half a cosine (section 4).
FIRST_STEP, LAST_STEP = 1.0, 0.01
# Keeps 0 / 0 out of a perturbation that has not begun.
TINY = 1e-12


def ddn(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    steps: int = 100,
    initial_eps: float = 1.0,
    gamma: float = 0.05,
    levels: int | None = None,
    targeted: bool = False,
    draws: Draws = one_draw,
) -> Float[Tensor, "n c h w"]:
    """Adversarial inputs close in L2: steps up the cross-entropy, each set back on a sphere that shrinks or grows.

    The sphere's radius is multiplied by 1 - gamma after an adversarial iterate, and by 1 + gamma after any other
    (algorithm 1, eq. 4-5). Nothing is drawn but by the model.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach if `targeted`.
        steps: gradients taken, the first of them at the inputs.
        initial_eps: the sphere's first radius, in pixel units of [0, 1].
        gamma: the share by which the radius changes, in [0, 1].
        levels: values that a pixel may take, 256 for 8 bits, equally spaced in [0, 1]; None for any value.
        targeted: whether `labels` are what the attack wants.
        draws: turns the cross-entropy into an objective of a random model, such as `partial(expected_loss, 8)`. Success
            is judged on the same draws, by their mean margin: norms of a random model come out too small (`Search`).

    Returns:
        Images in [0, 1], (N, C, H, W), of the inputs' device and dtype: of each the adversarial version of the smallest
        L2 norm that was met; the inputs themselves where they succeed as they are, and where nothing was found.

    Raises:
        ArgumentError: inputs or labels as `check_inputs` and `check_labels` refuse them, no steps, fewer than two
            levels, a negative radius, gamma outside [0, 1], a model without gradients.
    """
    search = Search(model, inputs, labels, norm="l2", draws=draws, loss=cross_entropy, targeted=targeted)
    check_positive(steps, "steps")
    check_not_negative(initial_eps, "initial_eps")
    check_fraction(gamma, "gamma")
    if levels is not None and check_positive(levels, "levels") < 2:
        raise ArgumentError("levels", "an integer of at least 2, or None", levels)
    clean = wide(search.inputs)
    rows = torch.arange(len(clean), device=clean.device)
    radius, images = clean.new_full((len(clean),), initial_eps), search.inputs
    with evaluating(model):
        for step in range(steps):
            values, slope = search.judge(images, rows)
            length = LAST_STEP + (FIRST_STEP - LAST_STEP) * (1 + math.cos(math.pi * step / steps)) / 2
            delta = wide(images) - clean + length * ball("l2").steepest(slope)
            radius = torch.where(values > 0, (1 - gamma) * radius, (1 + gamma) * radius)
            delta = delta * (radius / norms(delta, "l2").clamp_min(TINY)).view(-1, 1, 1, 1)
            images = _quantised((clean + delta).clamp(0, 1), levels).to(search.inputs)
    return search.images


def _quantised(images: Tensor, levels: int | None) -> Tensor:
    """`images` at the nearest of `levels` values, equally spaced in [0, 1]."""
    return images if levels is None else (images * (levels - 1)).round() / (levels - 1)
