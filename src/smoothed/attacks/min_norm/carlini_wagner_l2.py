"""Carlini and Wagner's L2 attack (S&P 2017, section VI-A)."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.attacks.min_norm.minimum import Search
from smoothed.attacks.min_norm.tanh_descent import descend, squares
from smoothed.attacks.objectives import Draws, one_draw
from smoothed.utils.checks import check_not_negative, check_positive
from smoothed.utils.modes import Classifier, evaluating


def carlini_wagner_l2(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    steps: int = 1000,
    search_steps: int = 9,
    initial_c: float = 1e-3,
    step_size: float = 0.01,
    confidence: float = 0.0,
    abort_early: bool = True,
    targeted: bool = False,
    draws: Draws = one_draw,
) -> Float[Tensor, "n c h w"]:
    """Adversarial inputs close in L2: Adam on ||delta||^2 + c f6(x + delta) in tanh's space, and a binary search on c.

    f6 is the margin that a success lacks, with `confidence` for the paper's kappa. Each image has its own c, which is
    raised tenfold until an attempt succeeds and then halved in on; every attempt starts from the inputs. Nothing is
    drawn but by the model.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach if `targeted`.
        steps: gradients of one attempt, at most.
        search_steps: attempts, each with its own c.
        initial_c: the first c.
        step_size: Adam's, in tanh's space: a pixel moves by half of it at most.
        confidence: by how many logits the wrong class must win, at least 0.
        abort_early: whether an attempt ends for an image whose loss has not fallen for a tenth of the steps (at least
            ten).
        targeted: whether `labels` are what the attack wants.
        draws: turns the margin into an objective of a random model, such as `partial(expected_loss, 8)`. Success is
            judged on the same draws, by their mean margin: norms of a random model come out too small (see `Search`).

    Returns:
        Images in [0, 1], (N, C, H, W), of the inputs' device and dtype: of each the adversarial version of the smallest
        L2 norm that was met; the inputs themselves where they succeed as they are, and where nothing was found.

    Raises:
        ArgumentError: inputs or labels as `check_inputs` and `check_labels` refuse them, no steps or attempts, a
            negative number, a model without gradients.
    """
    search = Search(model, inputs, labels, norm="l2", draws=draws, confidence=confidence, targeted=targeted)
    check_positive(steps, "steps")
    check_positive(search_steps, "search_steps")
    check_not_negative(initial_c, "initial_c")
    check_not_negative(step_size, "step_size")
    with evaluating(model):
        rows = search.standing()
        start = search.inputs[rows]
        c = search.sizes.new_full((len(rows),), initial_c)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        for _ in range(search_steps):
            found, _ = descend(
                search, rows, start, c, squares, steps=steps, step_size=step_size, abort_early=abort_early
            )
            low, high = torch.where(found, low, c), torch.where(found, c, high)
            c = torch.where(high.isinf(), 10 * c, (low + high) / 2)
    return search.images
