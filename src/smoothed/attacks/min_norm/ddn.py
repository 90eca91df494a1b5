"""DDN, decoupled direction and norm: an attack of minimal L2 norm (Rony et al., CVPR 2019)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.ball import ball
from smoothed.attacks.losses import cross_entropy
from smoothed.attacks.min_norm.minimum import Search, at_least_float32, norms
from smoothed.attacks.objectives import ObjectiveFactory, one_draw_loss
from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_fraction, check_not_negative, check_positive
from smoothed.utils.modes import Classifier, eval_mode

# Length of the first and the last step; between them it falls along half a cosine (section 4).
FIRST_STEP, LAST_STEP = 1.0, 0.01
# Lower bound for a norm that is divided by: avoids 0 / 0 for a zero perturbation.
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
    make_objective: ObjectiveFactory = one_draw_loss,
) -> Float[Tensor, "n c h w"]:
    """Return adversarial inputs of small L2 distance: steps up the cross-entropy, projected onto a sphere that adapts.

    The radius of the sphere is multiplied by 1 - gamma after an adversarial iterate, and by 1 + gamma otherwise
    (algorithm 1, eq. 4-5). The model is the only source of randomness.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `targeted`.
        steps: number of gradients, of which the first is at the inputs.
        initial_eps: initial radius of the sphere in pixel units of [0, 1].
        gamma: relative change of the radius per step, in [0, 1].
        levels: number of values that a pixel may take, equally spaced in [0, 1], such as 256 for 8 bits; None for any
            value.
        targeted: whether `labels` are target classes.
        make_objective: makes an objective of the cross-entropy: `one_draw_loss`, or `partial(expected_loss, 8)` for a
            random model. Success is judged by the mean margin of the same draws, so the norms found for a random model
            are too small (see `Search`).

    Returns:
        Images in [0, 1], (N, C, H, W), with the inputs' device and dtype: for each image the adversarial version with
        the smallest L2 norm. Inputs that are adversarial already, or for which nothing was found, are returned
        unchanged.

    Raises:
        ArgumentError: inputs or labels are invalid (see `check_inputs` and `check_labels`), `steps` is below 1,
            `levels` below 2, the radius negative, gamma outside [0, 1], or the model has no gradient.
    """
    search = Search(
        model, inputs, labels, norm="l2", make_objective=make_objective, loss=cross_entropy, targeted=targeted
    )
    check_positive(steps, "steps")
    check_not_negative(initial_eps, "initial_eps")
    check_fraction(gamma, "gamma")
    if levels is not None and check_positive(levels, "levels") < 2:
        raise ArgumentError("levels", "an integer of at least 2, or None", levels)
    clean = at_least_float32(search.inputs)
    rows = torch.arange(len(clean), device=clean.device)
    radius, images = clean.new_full((len(clean),), initial_eps), search.inputs
    with eval_mode(model):
        for step in range(steps):
            values, gradient = search.judge(images, rows)
            length = LAST_STEP + (FIRST_STEP - LAST_STEP) * (1 + math.cos(math.pi * step / steps)) / 2
            delta = at_least_float32(images) - clean + length * ball("l2").steepest(gradient)
            radius = torch.where(values > 0, (1 - gamma) * radius, (1 + gamma) * radius)
            delta = delta * (radius / norms(delta, "l2").clamp_min(TINY)).view(-1, 1, 1, 1)
            images = _quantised((clean + delta).clamp(0, 1), levels).to(search.inputs)
    return search.images


def _quantised(images: Tensor, levels: int | None) -> Tensor:
    """Return `images` rounded to the nearest of `levels` values, equally spaced in [0, 1]."""
    return images if levels is None else (images * (levels - 1)).round() / (levels - 1)
