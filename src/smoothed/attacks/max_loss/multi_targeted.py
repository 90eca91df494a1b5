"""Multi-targeted PGD (Gowal et al., 2019): PGD towards each wrong class separately, keeping the best result."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.ball import Norm
from smoothed.attacks.losses import margin, targeted_margin
from smoothed.attacks.max_loss.pgd import pgd
from smoothed.attacks.max_loss.targets import best_wrong_classes
from smoothed.attacks.objectives import ObjectiveFactory, check_objective_factory, one_draw_loss
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import check_callable, check_inputs, check_labels, check_positive
from smoothed.utils.modes import Classifier, eval_mode


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
    make_objective: ObjectiveFactory = one_draw_loss,
    restarts: int = 1,
    random_start: bool = True,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Run PGD on z_t - z_y for each of the best wrong classes t, and keep the result with the highest margin.

    The margin is the maximum of these surrogates, and misleads PGD if the best wrong class changes during the ascent.
    The results are compared by a fresh evaluation of `make_objective(margin)`: on a random model the highest value is
    biased upwards, less so with more draws.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,).
        eps: radius in pixel units of [0, 1]: one number, or one radius per image, (N,).
        step_size: length of a step in pixel units of [0, 1], as `eps`; None for eps / 4.
        steps: number of gradient steps towards each target.
        norm: `linf` or `l2`.
        num_targets: maximum number of wrong classes to target, in the order of their logits at the inputs; None for
            all.
        make_objective: makes an objective of a loss: `one_draw_loss`, or `partial(expected_loss, 8)` for the mean of 8
            draws.
        restarts: number of runs towards each target.
        random_start: whether to start uniformly in the ball, rather than at the inputs.
        generator: source of the random starts, on the inputs' device; None for torch's default generator.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), with the inputs' device and dtype.

    Raises:
        ArgumentError: as for `pgd`, or `num_targets` is below 1.
    """
    check_callable(model, "model")
    check_objective_factory(make_objective)
    inputs = check_inputs(inputs).detach()
    check_labels(labels, inputs)
    check_positive(restarts, "restarts")
    best, highest = inputs, torch.full(labels.shape, -torch.inf, device=inputs.device)
    with eval_mode(model):
        targets = best_wrong_classes(model, inputs, labels, num_targets, make_objective)
        for target in targets.repeat_interleave(restarts, 0):
            end = pgd(
                model,
                inputs,
                labels,
                eps=eps,
                step_size=step_size,
                steps=steps,
                norm=norm,
                objective=make_objective(targeted_margin(target)),
                random_start=random_start,
                generator=generator,
            )
            with torch.no_grad():
                value = make_objective(margin)(model, end, labels)
            higher = value > highest
            best = torch.where(higher.view(-1, 1, 1, 1), end, best)
            highest = torch.where(higher, value, highest)
    return best
