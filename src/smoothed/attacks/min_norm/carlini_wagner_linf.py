"""Carlini and Wagner's L-inf attack (S&P 2017, section VI-C)."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.min_norm.minimum import Search
from smoothed.attacks.min_norm.tanh_descent import descend
from smoothed.attacks.objectives import ObjectiveFactory, one_draw_loss
from smoothed.utils.checks import check_fraction, check_not_negative, check_positive
from smoothed.utils.modes import Classifier, eval_mode


def carlini_wagner_linf(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    steps: int = 1000,
    search_steps: int = 20,
    initial_const: float = 0.1,
    step_size: float = 0.01,
    decrease_factor: float = 0.9,
    confidence: float = 0.0,
    targeted: bool = False,
    make_objective: ObjectiveFactory = one_draw_loss,
) -> Float[Tensor, "n c h w"]:
    """Return adversarial inputs of small L-inf distance: Adam on `sum max(|delta_i| - tau, 0) + c f6(x + delta)`.

    f6 is the margin that is missing for a success by `confidence`; the optimisation is in tanh space. The tolerance tau
    starts at 1, and is `decrease_factor` times the smallest norm found so far, so it falls at each success. Each image
    has its own tau and its own c. An attempt starts at the best adversarial image so far, or else where the last
    attempt ended. If the attempt does not bring the norm at least half of the way to tau, c doubles and the factor
    becomes its square root, which brings tau closer to the norm found.

    There are two differences from the authors' code: it stops at the first tau that fails, and its step size is
    constant. Here the step size falls over an attempt, without which the iterates do not converge. The model is the
    only source of randomness.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `targeted`.
        steps: number of gradients per attempt.
        search_steps: number of attempts.
        initial_const: initial c, the weight of the margin against the penalty.
        step_size: Adam's initial learning rate in tanh space: a pixel moves by at most half of it per step.
        decrease_factor: initial ratio of tau to the smallest norm found, in [0, 1].
        confidence: margin in logits by which the wrong class must win, at least 0.
        targeted: whether `labels` are target classes.
        make_objective: makes an objective of the margin: `one_draw_loss`, or `partial(expected_loss, 8)` for a random
            model. Success is judged by the mean margin of the same draws, so the norms found for a random model are too
            small (see `Search`).

    Returns:
        Images in [0, 1], (N, C, H, W), with the inputs' device and dtype: for each image the adversarial version with
        the smallest L-inf norm. Inputs that are adversarial already, or for which nothing was found, are returned
        unchanged.

    Raises:
        ArgumentError: inputs or labels are invalid (see `check_inputs` and `check_labels`), `steps` or `search_steps`
            is below 1, a number is negative, or the model has no gradient.
    """
    search = Search(
        model, inputs, labels, norm="linf", make_objective=make_objective, confidence=confidence, targeted=targeted
    )
    check_positive(steps, "steps")
    check_positive(search_steps, "search_steps")
    check_not_negative(initial_const, "initial_const")
    check_not_negative(step_size, "step_size")
    check_fraction(decrease_factor, "decrease_factor")

    def excess_over_tau(delta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        tau = (factor * search.norms)[rows].clamp_max(1).view(-1, 1, 1, 1)
        excess = (delta.abs() - tau).clamp_min(0)
        return excess.flatten(1).sum(1), delta.sign() * (excess > 0)

    with eval_mode(model):
        rows = search.rows_to_attack()
        start = search.inputs[rows]
        c = torch.full_like(search.norms, initial_const)
        factor = torch.full_like(search.norms, decrease_factor)
        for _ in range(search_steps):
            previous_norms = search.norms.clone()
            _, last_iterates = descend(
                search, rows, start, c[rows], excess_over_tau, steps=steps, step_size=step_size, decay_step_size=True
            )
            start = torch.where(search.found[rows].view(-1, 1, 1, 1), search.images[rows], last_iterates)
            stalled = search.norms > previous_norms * (1 + factor) / 2  # less than half of the way to tau
            c = torch.where(stalled, 2 * c, c)
            factor = torch.where(stalled & search.found, factor.sqrt(), factor)
    return search.images
