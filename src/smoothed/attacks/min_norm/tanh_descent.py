"""Inner loop of the Carlini-Wagner attacks (2017, section V): Adam on a penalty plus c f6, in tanh space."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.attacks.min_norm.minimum import Search, at_least_float32
from smoothed.utils.shapes import ImageRows

Penalty = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps perturbations (M, C, H, W) and their row indices (M,) to penalties (M,) and gradients of these (M, C, H, W)."""

BETA_1, BETA_2, ADAM_EPSILON = 0.9, 0.999, 1e-8  # Adam's defaults
# Scales pixels into the open interval (-1, 1), so that 0 and 1 have finite coordinates in tanh space.
SHRINKAGE = 1 - 1e-6
# With `abort_early`, progress is checked this many times in a run: an image is given up if its loss has fallen by less
# than this fraction. At least ten steps lie between checks, since the loss of a single image oscillates.
PROGRESS_CHECKS, MIN_PROGRESS, MIN_CHECK_INTERVAL = 10, 1e-4, 10


def descend(
    search: Search,
    rows: Int[Tensor, " m"],
    start: ImageRows,
    c: Float[Tensor, " m"],
    penalty: Penalty,
    *,
    steps: int,
    step_size: float,
    abort_early: bool = False,
    stop_at_success: bool = False,
    decay_step_size: bool = False,
    free: Bool[Tensor, "m 1 h w"] | None = None,
) -> tuple[Bool[Tensor, " m"], ImageRows]:
    """Minimise penalty(delta) + c f6(x + delta) by Adam, independently for each image.

    The optimisation is over w in tanh space, with x + delta = (tanh(w) + 1) / 2. `search` evaluates every iterate and
    keeps the best.

    Args:
        search: record of the search over the whole batch.
        rows: indices of the images to work on, (M,).
        start: images in [0, 1] to start from, (M, C, H, W).
        c: weight of f6, the missing margin, (M,).
        penalty: penalty of perturbations, and its gradient.
        steps: maximum number of gradients.
        step_size: Adam's learning rate in tanh space: a pixel moves by at most half of it per step.
        abort_early: whether to give up an image whose loss has not fallen for a tenth of the steps (at least ten
            steps).
        stop_at_success: whether to stop the work on an image at its first success.
        decay_step_size: whether the step size falls linearly to 0, so that iterates converge despite a penalty with a
            kink.
        free: mask of positions that may change, (M, 1, H, W); None for all positions.

    Returns:
        The images that succeeded at some step, (M,) bool, and the last iterates, (M, C, H, W).
    """
    inputs = at_least_float32(search.inputs[rows])
    free = torch.ones_like(inputs[:, :1], dtype=torch.bool) if free is None else free
    found = torch.zeros_like(rows, dtype=torch.bool)
    latent = torch.atanh((2 * at_least_float32(start) - 1) * SHRINKAGE)
    first, second = torch.zeros_like(latent), torch.zeros_like(latent)
    lowest_loss = checked_loss = torch.full_like(c, torch.inf)
    last_iterates = start.clone()
    active = torch.arange(len(rows), device=rows.device)
    for step in range(1, steps + 1):
        iterate = (latent.tanh() + 1) / 2
        images = torch.where(free[active], iterate, inputs[active]).to(search.inputs)
        values, gradient = search.judge(images, rows[active])
        found[active] |= values > 0
        last_iterates[active] = images
        penalties, penalty_gradient = penalty(at_least_float32(images) - inputs[active], rows[active])
        lowest_loss = torch.minimum(lowest_loss, penalties + c[active] * (-values).clamp_min(0))
        margin_gradient = (c[active] * (values <= 0)).view(-1, 1, 1, 1) * gradient
        latent_gradient = (penalty_gradient - margin_gradient) * 2 * iterate * (1 - iterate) * free[active]
        first = torch.lerp(latent_gradient, first, BETA_1)
        second = torch.lerp(latent_gradient.square(), second, BETA_2)
        scale = (second / (1 - BETA_2**step)).sqrt() + ADAM_EPSILON
        length = step_size * (1 - (step - 1) / steps) if decay_step_size else step_size
        latent = latent - length * first / (1 - BETA_1**step) / scale
        keep = torch.ones_like(active, dtype=torch.bool)
        if abort_early and step % max(MIN_CHECK_INTERVAL, steps // PROGRESS_CHECKS) == 0:
            keep &= lowest_loss < (1 - MIN_PROGRESS) * checked_loss
            checked_loss = lowest_loss
        if stop_at_success:
            keep &= ~found[active]
        if not keep.all():
            state = (active, latent, first, second, lowest_loss, checked_loss)
            active, latent, first, second, lowest_loss, checked_loss = (tensor[keep] for tensor in state)
            if not len(active):
                break
    return found, last_iterates


def squared_l2(delta: ImageRows, rows: Int[Tensor, " m"]) -> tuple[Float[Tensor, " m"], ImageRows]:
    """Penalty of the L2 attack: ||delta||^2 of each image, (M,), and its gradient, (M, C, H, W)."""
    del rows
    return delta.square().flatten(1).sum(1), 2 * delta
