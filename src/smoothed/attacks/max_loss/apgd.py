"""Auto-PGD (Croce and Hein, 2020): PGD with momentum and an automatic step size, for one loss or several targets.

On a random model, each objective value that the attack compares is one noisy evaluation. The highest value is therefore
biased upwards (a lucky draw rather than the worst image), and noise halves the step size as a plateau does. Both
effects shrink as the objective averages more draws: use an expectation over draws, and measure success on fresh draws,
as `evaluate` does.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.ball import Norm
from smoothed.attacks.losses import Loss, margin, targeted_dlr
from smoothed.attacks.max_loss.auto_ascent import Points, Problem, ascend, imagewise_best, make_problem
from smoothed.attacks.max_loss.targets import best_wrong_classes
from smoothed.attacks.objectives import (
    Objective,
    ObjectiveFactory,
    check_objective_factory,
    objective_or_default,
    one_draw_loss,
)
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import check_callable, check_flag, check_generator, check_positive
from smoothed.utils.modes import Classifier, eval_mode

Attempt = Callable[[Tensor], Points]
"""Maps a mask of the images that need no more work, (N,) bool, to the best points of one ascent."""


def apgd(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    steps: int = 100,
    norm: Norm = "linf",
    objective: Objective | None = None,
    targeted: bool = False,
    restarts: int = 1,
    random_start: bool = True,
    early_stop: bool = False,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Return the adversarial inputs with the highest objective that Auto-PGD finds.

    The defaults are APGD-CE; `objective=one_draw_loss(dlr)` is APGD-DLR. The model runs in eval mode, and its modes are
    restored afterwards. Gradients are computed at the start and after every step except the last, where only the
    objective is evaluated.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `targeted`.
        eps: radius in pixel units of [0, 1], of each pixel for `linf` and of the whole image for `l2`: one number, or
            one radius per image, (N,).
        steps: number of steps per restart, the paper's N_iter. The first step has length 2 eps.
        norm: `linf` (steps along the sign of the gradient) or `l2` (steps along the normalised gradient).
        objective: objective to ascend, or to descend if `targeted`; None for the cross-entropy of one draw. With
            `early_stop` it is called on a subset of the images, so it must not hold per-image state.
        targeted: whether `labels` are target classes.
        restarts: number of runs; for each image the highest objective of all runs is kept, without re-evaluation.
        random_start: whether to start uniformly in the ball, rather than at the inputs.
        early_stop: whether to stop the work on an image as soon as it is misclassified (classified as `labels` if
            `targeted`), and to return it in that state. For deterministic models: on a random model, one lucky draw
            ends the work.
        generator: source of the random starts, on the inputs' device; None for torch's default generator.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), with the inputs' device and dtype.

    Raises:
        ArgumentError: inputs or labels are invalid (see `check_inputs` and `check_labels`), eps is negative, `steps` or
            `restarts` is below 1, or the model has no gradient.
    """
    single_objective = objective_or_default(objective)
    problem = make_problem(
        model,
        inputs,
        labels,
        eps=eps,
        norm=norm,
        objective=lambda _: single_objective,
        early_stop=early_stop,
        targeted=targeted,
    )
    check_positive(steps, "steps")
    check_positive(restarts, "restarts")
    check_flag(random_start, "random_start")
    check_generator(generator)
    with eval_mode(model):
        starts = (problem.start(generator, random=random_start) for _ in range(restarts))
        return _best_of((partial(ascend, problem, start, steps) for start in starts), problem, reevaluate=False)


def apgd_targeted(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    steps: int = 100,
    norm: Norm = "linf",
    num_targets: int | None = 9,
    loss: Callable[[Tensor], Loss] = targeted_dlr,
    make_objective: ObjectiveFactory = one_draw_loss,
    restarts: int = 1,
    random_start: bool = True,
    early_stop: bool = False,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Run APGD towards each of the best wrong classes in turn: APGD-T, with the targeted DLR loss (eq. 7).

    Each attempt yields the image with its highest loss. Of all attempts, the image with the highest untargeted margin
    is kept, by a fresh evaluation of `make_objective(margin)`.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,).
        eps: radius in pixel units of [0, 1]: one number, or one radius per image, (N,).
        steps: number of steps per attempt.
        norm: `linf` or `l2`.
        num_targets: maximum number of wrong classes to target, in the order of their logits at the inputs; None for
            all.
        loss: makes the loss to ascend from target classes (N,). The targeted DLR needs four classes, `targeted_margin`
            two.
        make_objective: makes an objective of a loss: `one_draw_loss`, or `partial(expected_loss, 8)` for the mean of 8
            draws.
        restarts: number of attempts per target.
        random_start: whether to start uniformly in the ball, rather than at the inputs.
        early_stop: whether to stop the work on an image as soon as it is misclassified as any class (see `apgd`).
        generator: source of the random starts, on the inputs' device; None for torch's default generator.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), with the inputs' device and dtype.

    Raises:
        ArgumentError: as for `apgd`, or `num_targets` is below 1, or the model has too few classes for the loss.
    """
    check_callable(loss, "loss")
    check_objective_factory(make_objective)
    untargeted_objective = make_objective(margin)
    untargeted = make_problem(
        model, inputs, labels, eps=eps, norm=norm, objective=lambda _: untargeted_objective, early_stop=early_stop
    )
    check_positive(steps, "steps")
    check_positive(restarts, "restarts")
    check_flag(random_start, "random_start")
    check_generator(generator)

    def towards(targets: Tensor) -> Attempt:
        problem = replace(untargeted, objective=lambda rows: make_objective(loss(targets[rows])))
        return partial(ascend, problem, problem.start(generator, random=random_start), steps)

    with eval_mode(model):
        targets = best_wrong_classes(model, untargeted.inputs, labels, num_targets, make_objective)
        return _best_of(map(towards, targets.repeat_interleave(restarts, 0)), untargeted, reevaluate=True)


def _best_of(attempts: Iterable[Attempt], problem: Problem, *, reevaluate: bool) -> Float[Tensor, "n c h w"]:
    """Return for each image the attempt with the highest value: the attempt's own, or `problem`'s if `reevaluate`."""
    best: Points | None = None
    for attempt in attempts:
        done = torch.zeros_like(problem.labels, dtype=torch.bool) if best is None else best.done
        if problem.early_stop and done.all():
            break
        result = attempt(done)
        if reevaluate:
            result = problem.evaluate(result.images, result.done, with_gradient=False)
        best = result if best is None else imagewise_best(result, best)
    return problem.inputs if best is None else best.images
