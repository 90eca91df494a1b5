"""Multi-targeted PGD (Gowal et al., 2019): PGD towards each wrong class by itself, and the best end of all."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.ball import Norm
from smoothed.attacks.losses import margin, targeted_margin
from smoothed.attacks.max_loss.pgd import pgd
from smoothed.attacks.max_loss.targets import best_wrong_classes
from smoothed.attacks.objectives import Draws, one_draw
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import check_inputs, check_labels, check_positive
from smoothed.utils.modes import Classifier, evaluating


def multi_targeted_pgd(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    step_size: float | Tensor | None = None,
    steps: int = 20,
    norm: Norm = "linf",
    num_targets: int | None = 9,
    draws: Draws = one_draw,
    restarts: int = 1,
    random_start: bool = True,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """The ends of PGD on z_t - z_y, for each of the best wrong classes t, that have the highest margin.

    The margin is the largest of these surrogates, and misleads PGD where the best wrong class changes on the way. The
    margin of an end is a fresh evaluation of `draws(margin)`: on a random model the highest of them is biased upwards,
    less so with more draws.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,).
        eps: as in `pgd`, as are `step_size`, `norm` and `random_start`.
        step_size: eps / 4 when None.
        steps: gradients taken towards each target.
        norm: `linf` or `l2`.
        num_targets: how many of the wrong classes at most, best first by their logits at the inputs; all when None.
        draws: how a loss becomes an objective: `one_draw`, or `partial(expected_loss, 8)` for the mean of 8 draws.
        restarts: how often to start towards each target.
        random_start: uniform in the ball, or at the inputs themselves.
        generator: of the starts, on the inputs' device; torch's default one when None.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), of the inputs' device and dtype.

    Raises:
        ArgumentError: as `pgd`; no targets.
    """
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    check_positive(restarts, "restarts")
    best, highest = inputs, torch.full(labels.shape, -torch.inf, device=inputs.device)
    with evaluating(model):
        targets = best_wrong_classes(model, inputs, labels, num_targets, draws)
        for each in targets.repeat_interleave(restarts, 0):
            end = pgd(
                model,
                inputs,
                labels,
                eps=eps,
                step_size=step_size,
                steps=steps,
                norm=norm,
                objective=draws(targeted_margin(each)),
                random_start=random_start,
                generator=generator,
            )
            with torch.no_grad():
                value = draws(margin)(model, end, labels)
            higher = value > highest
            best = torch.where(higher.view(-1, 1, 1, 1), end, best)
            highest = torch.where(higher, value, highest)
    return best
