"""Carlini and Wagner's L-inf attack (S&P 2017, section VI-C)."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.min_norm.minimum import Search
from smoothed.attacks.min_norm.tanh_descent import descend
from smoothed.attacks.objectives import Draws, one_draw
from smoothed.utils.checks import check_fraction, check_not_negative, check_positive
from smoothed.utils.modes import Classifier, evaluating


def carlini_wagner_linf(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    steps: int = 1000,
    search_steps: int = 20,
    initial_c: float = 0.1,
    step_size: float = 0.01,
    shrink: float = 0.9,
    confidence: float = 0.0,
    targeted: bool = False,
    draws: Draws = one_draw,
) -> Float[Tensor, "n c h w"]:
    """Adversarial inputs close in L-inf: Adam on sum max(|delta_i| - tau, 0) + c f6(x + delta), with tau shrinking.

    The tolerance tau starts at 1 and is `shrink` of the smallest norm found so far, so that it falls at each success.
    Each image has its own tau and its own c. An attempt begins at the best image so far, or where the last one ended.
    If it does not bring the norm half of the way to tau, c doubles and the share becomes its square root, so that tau
    nears the norm that was found. Two things are not its authors': they stop at the first tau that fails, and their
    step does not fall over an attempt, without which the iterates never come to rest. Only the model draws.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach if `targeted`.
        steps: gradients of one attempt.
        search_steps: attempts.
        initial_c: the first c.
        step_size: Adam's, in tanh's space: a pixel moves by half of it at most.
        shrink: tau's share of the smallest norm found, at first, in [0, 1].
        confidence: by how many logits the wrong class must win, at least 0.
        targeted: whether `labels` are what the attack wants.
        draws: turns the margin into an objective of a random model, such as `partial(expected_loss, 8)`. Success is
            judged on the same draws, by their mean margin: norms of a random model come out too small (see `Search`).

    Returns:
        Images in [0, 1], (N, C, H, W), of the inputs' device and dtype: of each the adversarial version of the smallest
        L-inf norm that was met; the inputs themselves where they succeed as they are, and where nothing was found.

    Raises:
        ArgumentError: inputs or labels as `check_inputs` and `check_labels` refuse them, no steps or attempts, a
            negative number, a model without gradients.
    """
    search = Search(model, inputs, labels, norm="linf", draws=draws, confidence=confidence, targeted=targeted)
    check_positive(steps, "steps")
    check_positive(search_steps, "search_steps")
    check_not_negative(initial_c, "initial_c")
    check_not_negative(step_size, "step_size")
    check_fraction(shrink, "shrink")

    def overshoot(delta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        tau = (share * search.sizes)[rows].clamp_max(1).view(-1, 1, 1, 1)
        over = (delta.abs() - tau).clamp_min(0)
        return over.flatten(1).sum(1), delta.sign() * (over > 0)

    with evaluating(model):
        rows = search.standing()
        start = search.inputs[rows]
        c = torch.full_like(search.sizes, initial_c)
        share = torch.full_like(search.sizes, shrink)
        for _ in range(search_steps):
            before = search.sizes.clone()
            _, ends = descend(search, rows, start, c[rows], overshoot, steps=steps, step_size=step_size, settle=True)
            start = torch.where(search.found[rows].view(-1, 1, 1, 1), search.images[rows], ends)
            missed = search.sizes > before * (1 + share) / 2  # less than half of the way to tau
            c = torch.where(missed, 2 * c, c)
            share = torch.where(missed & search.found, share.sqrt(), share)
    return search.images
