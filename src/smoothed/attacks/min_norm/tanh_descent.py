"""The inner loop of Carlini and Wagner's attacks (2017, section V): Adam on a penalty plus c f6, in tanh's space."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.attacks.min_norm.minimum import Search, wide

Images = Float[Tensor, "m c h w"]
Penalty = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From perturbations (M, C, H, W) and their rows (M,) to penalties (M,) and their gradients (M, C, H, W)."""

FIRST_DECAY, SECOND_DECAY, STABILITY = 0.9, 0.999, 1e-8  # Adam's, as its authors set them
# Keeps a pixel at 0 or 1 at a finite place in tanh's space.
SHRINKAGE = 1 - 1e-6
# A run is looked at this many times, and an image whose loss has not fallen by this share since is given up; never over
# fewer steps than Adam's first moment remembers, since one image's loss goes up and down.
LOOKS, PROGRESS, SHORTEST = 10, 1e-4, 10


def descend(
    search: Search,
    rows: Int[Tensor, " m"],
    start: Images,
    c: Float[Tensor, " m"],
    penalty: Penalty,
    *,
    steps: int,
    step_size: float,
    abort_early: bool = False,
    until_found: bool = False,
    settle: bool = False,
    free: Bool[Tensor, "m 1 h w"] | None = None,
) -> tuple[Bool[Tensor, " m"], Images]:
    """Minimise penalty(delta) + c f6(x + delta) over x + delta = (tanh(w) + 1) / 2 by Adam, image by image.

    `search` judges each iterate and keeps the best. What happens to an image does not depend on the others.

    Args:
        search: of the whole batch.
        rows: which of its images to work on, (M,).
        start: images in [0, 1] to start from, (M, C, H, W).
        c: weight of f6, the margin that is missing, (M,).
        penalty: of perturbations.
        steps: gradients at most.
        step_size: Adam's, in tanh's space: a pixel moves by half of it at most.
        abort_early: whether to give up an image whose loss has not fallen for a tenth of the steps, ten at least.
        until_found: whether to stop an image at its first success.
        settle: whether the step falls to 0 over the run, so that iterates come to rest where the penalty has a kink.
        free: positions that may change, (M, 1, H, W); all when None.

    Returns:
        Which images succeeded at some step, (M,), and the last iterates, (M, C, H, W).
    """
    inputs = wide(search.inputs[rows])
    free = torch.ones_like(inputs[:, :1], dtype=torch.bool) if free is None else free
    found = torch.zeros_like(rows, dtype=torch.bool)
    place = torch.atanh((2 * wide(start) - 1) * SHRINKAGE)
    first, second = torch.zeros_like(place), torch.zeros_like(place)
    lowest = previous = torch.full_like(c, torch.inf)
    ends = start.clone()
    active = torch.arange(len(rows), device=rows.device)
    for step in range(1, steps + 1):
        moved = (place.tanh() + 1) / 2
        images = torch.where(free[active], moved, inputs[active]).to(search.inputs)
        values, slope = search.judge(images, rows[active])
        found[active] |= values > 0
        ends[active] = images
        size, pull = penalty(wide(images) - inputs[active], rows[active])
        lowest = torch.minimum(lowest, size + c[active] * (-values).clamp_min(0))
        push = (c[active] * (values <= 0)).view(-1, 1, 1, 1) * slope
        gradient = (pull - push) * 2 * moved * (1 - moved) * free[active]
        first = torch.lerp(gradient, first, FIRST_DECAY)
        second = torch.lerp(gradient.square(), second, SECOND_DECAY)
        scale = (second / (1 - SECOND_DECAY**step)).sqrt() + STABILITY
        length = step_size * (1 - (step - 1) / steps) if settle else step_size
        place = place - length * first / (1 - FIRST_DECAY**step) / scale
        keep = torch.ones_like(active, dtype=torch.bool)
        if abort_early and step % max(SHORTEST, steps // LOOKS) == 0:
            keep &= lowest < (1 - PROGRESS) * previous
            previous = lowest
        if until_found:
            keep &= ~found[active]
        if not keep.all():
            state = (active, place, first, second, lowest, previous)
            active, place, first, second, lowest, previous = (tensor[keep] for tensor in state)
            if not len(active):
                break
    return found, ends


def squares(delta: Images, rows: Int[Tensor, " m"]) -> tuple[Float[Tensor, " m"], Images]:
    """The penalty of an L2 attack: ||delta||^2 of each image, and its gradient."""
    del rows
    return delta.square().flatten(1).sum(1), 2 * delta
