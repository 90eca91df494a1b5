"""Auto-PGD (Croce and Hein, 2020): PGD with momentum that finds its step size by itself, towards one loss or many.

On a random model each value that the attack compares is one evaluation of the objective, a draw of a random number. The
highest of them is biased upwards (the luckiest draw, not the worst image), and the step is halved for noise as well as
for a plateau. Both fade as the objective takes more draws: use an expectation over draws, and measure success on fresh
ones, as `evaluate` does.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.ball import Norm
from smoothed.attacks.losses import Loss, margin, targeted_dlr
from smoothed.attacks.max_loss.auto_ascent import Points, Problem, ascend, better, bounded
from smoothed.attacks.max_loss.targets import best_wrong_classes
from smoothed.attacks.objectives import Draws, Objective, one_draw
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import check_positive
from smoothed.utils.modes import Classifier, evaluating

Attempt = Callable[[Tensor], Points]
"""From the images that need no more work, (N,) bool, to the best points of one ascent."""


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
    stop: bool = False,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """Adversarial inputs with the highest objective that Auto-PGD meets on its way.

    APGD-CE is this attack as it is, APGD-DLR with `one_draw(dlr)`. The model runs in eval mode and is left as it was
    found. Gradients are taken at the start and after all steps but the last, where the value alone is looked at.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach if `targeted`.
        eps: radius in pixel units of [0, 1]: of each pixel for `linf`, of the whole image for `l2`. A number, or one an
            image, (N,).
        steps: the paper's N_iter. The first step is 2 eps long.
        norm: `linf` (steps along the sign) or `l2` (along the normalised gradient).
        objective: what to ascend (to descend if `targeted`); the cross-entropy of one draw when None. With `stop` it
            meets fewer images in each call and may hold nothing of its own for each.
        targeted: whether `labels` are what the attack wants.
        restarts: how often to start; for each image the highest objective of all is kept, as it was met.
        random_start: uniform in the ball, or at the inputs themselves.
        stop: leave an image alone as soon as it is misclassified (classified as `labels` if `targeted`), and return it
            as it was then. For deterministic models: on a random one a lucky draw would end the work.
        generator: of the starts, on the inputs' device; torch's default one when None.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), of the inputs' device and dtype.

    Raises:
        ArgumentError: inputs or labels as `check_inputs` and `check_labels` refuse them, a negative eps, no steps or
            restarts, a model without gradients.
    """
    ascended = objective or one_draw()
    problem = bounded(
        model,
        inputs,
        labels,
        eps=eps,
        norm=norm,
        objective=lambda _: ascended,
        stop=stop,
        targeted=targeted,
    )
    check_positive(steps, "steps")
    check_positive(restarts, "restarts")
    with evaluating(model):
        starts = (problem.start(generator, random=random_start) for _ in range(restarts))
        return _best_of((partial(ascend, problem, start, steps) for start in starts), problem, afresh=False)


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
    draws: Draws = one_draw,
    restarts: int = 1,
    random_start: bool = True,
    stop: bool = False,
    generator: Randomness = None,
) -> Float[Tensor, "n c h w"]:
    """APGD towards each of the best wrong classes in turn: APGD-T, with the targeted DLR (their eq. 7).

    An attempt ends where its loss was highest; of all ends the one with the highest untargeted margin is kept, by a
    fresh evaluation of `draws(margin)`.

    Args:
        model: as in `apgd`.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,).
        eps: as in `apgd`.
        steps: of each attempt.
        norm: `linf` or `l2`.
        num_targets: how many of the wrong classes at most, best first by their logits at the inputs; all when None.
        loss: from targets (N,) to the loss to ascend. The targeted DLR needs four classes, `targeted_margin` two.
        draws: how a loss becomes an objective: `one_draw`, or `partial(expected_loss, 8)` for the mean of 8 draws.
        restarts: how often to start for each target.
        random_start: as in `apgd`.
        stop: as in `apgd`: misclassified in any way ends all attempts.
        generator: as in `apgd`.

    Returns:
        Images in [0, 1] inside the ball, (N, C, H, W), of the inputs' device and dtype.

    Raises:
        ArgumentError: as `apgd`; no targets, or too few classes for the loss.
    """
    judged = draws(margin)
    judge = bounded(model, inputs, labels, eps=eps, norm=norm, objective=lambda _: judged, stop=stop)
    check_positive(steps, "steps")
    check_positive(restarts, "restarts")

    def towards(targets: Tensor) -> Attempt:
        problem = replace(judge, objective=lambda rows: draws(loss(targets[rows])))
        return partial(ascend, problem, problem.start(generator, random=random_start), steps)

    with evaluating(model):
        targets = best_wrong_classes(model, judge.inputs, labels, num_targets, draws)
        return _best_of(map(towards, targets.repeat_interleave(restarts, 0)), judge, afresh=True)


def _best_of(attempts: Iterable[Attempt], judge: Problem, *, afresh: bool) -> Float[Tensor, "n c h w"]:
    """The images of the attempts with the highest values, as met or, if `afresh`, as `judge` evaluates the ends."""
    best: Points | None = None
    for attempt in attempts:
        done = torch.zeros_like(judge.labels, dtype=torch.bool) if best is None else best.done
        if judge.stop and done.all():
            break
        end = attempt(done)
        if afresh:
            end = judge.evaluate(end.images, end.done, with_gradient=False)
        best = end if best is None else better(end, best)
    return judge.inputs if best is None else best.images
