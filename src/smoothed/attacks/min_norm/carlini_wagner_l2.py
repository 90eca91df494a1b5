"""Carlini and Wagner's L2 attack (S&P 2017, section VI-A)."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.min_norm.minimum import Search
from smoothed.attacks.min_norm.tanh_descent import descend, squared_l2
from smoothed.attacks.objectives import ObjectiveFactory, one_draw_loss
from smoothed.utils.checks import check_flag, check_not_negative, check_positive
from smoothed.utils.modes import Classifier, eval_mode


def carlini_wagner_l2(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    steps: int = 1000,
    binary_search_steps: int = 9,
    initial_const: float = 1e-3,
    step_size: float = 0.01,
    confidence: float = 0.0,
    abort_early: bool = True,
    targeted: bool = False,
    make_objective: ObjectiveFactory = one_draw_loss,
) -> Float[Tensor, "n c h w"]:
    """Return adversarial inputs of small L2 distance: Adam on ||delta||^2 + c f6(x + delta), with a binary search on c.

    f6 is the margin that is missing for a success by `confidence` (the paper's kappa); the optimisation is in tanh
    space. Each image has its own c. It is multiplied by ten until an attempt succeeds, and then found by bisection;
    every attempt starts from the inputs. The model is the only source of randomness.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `targeted`.
        steps: maximum number of gradients per attempt.
        binary_search_steps: number of attempts, each with another c.
        initial_const: initial c, the weight of the margin against the squared norm.
        step_size: Adam's learning rate in tanh space: a pixel moves by at most half of it per step.
        confidence: margin in logits by which the wrong class must win, at least 0.
        abort_early: whether to end an attempt on an image whose loss has not fallen for a tenth of the steps (at least
            ten steps).
        targeted: whether `labels` are target classes.
        make_objective: makes an objective of the margin: `one_draw_loss`, or `partial(expected_loss, 8)` for a random
            model. Success is judged by the mean margin of the same draws, so the norms found for a random model are too
            small (see `Search`).

    Returns:
        Images in [0, 1], (N, C, H, W), with the inputs' device and dtype: for each image the adversarial version with
        the smallest L2 norm. Inputs that are adversarial already, or for which nothing was found, are returned
        unchanged.

    Raises:
        ArgumentError: inputs or labels are invalid (see `check_inputs` and `check_labels`), `steps` or
            `binary_search_steps` is below 1, a number is negative, or the model has no gradient.
    """
    search = Search(
        model, inputs, labels, norm="l2", make_objective=make_objective, confidence=confidence, targeted=targeted
    )
    check_positive(steps, "steps")
    check_positive(binary_search_steps, "binary_search_steps")
    check_not_negative(initial_const, "initial_const")
    check_not_negative(step_size, "step_size")
    check_flag(abort_early, "abort_early")
    with eval_mode(model):
        rows = search.rows_to_attack()
        start = search.inputs[rows]
        c = search.norms.new_full((len(rows),), initial_const)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        for _ in range(binary_search_steps):
            found, _ = descend(
                search, rows, start, c, squared_l2, steps=steps, step_size=step_size, abort_early=abort_early
            )
            low, high = torch.where(found, low, c), torch.where(found, c, high)
            c = torch.where(high.isinf(), 10 * c, (low + high) / 2)
    return search.images
