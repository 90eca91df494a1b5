"""Carlini and Wagner's L0 attack (S&P 2017, section VI-B)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.attacks.min_norm.minimum import Search, at_least_float32
from smoothed.attacks.min_norm.tanh_descent import descend, squared_l2
from smoothed.attacks.objectives import ObjectiveFactory, one_draw_loss
from smoothed.utils.checks import check_not_negative, check_positive
from smoothed.utils.modes import Classifier, eval_mode

# Fraction of the changed positions that is frozen after a success, until an attempt fails.
INITIAL_FROZEN_FRACTION = 0.5


def carlini_wagner_l0(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    steps: int = 1000,
    search_steps: int = 40,
    initial_const: float = 1e-3,
    largest_const: float = 1e5,
    step_size: float = 0.01,
    confidence: float = 0.0,
    targeted: bool = False,
    make_objective: ObjectiveFactory = one_draw_loss,
) -> Float[Tensor, "n c h w"]:
    """Return adversarial inputs that differ in few pixels: L2 attempts on fewer and fewer pixels.

    A pixel is a position with all of its channels, as in the authors' attack on colour images. After each success, the
    least important changed pixels are frozen at their input values: those with the smallest product of the margin's
    gradient and the perturbation, summed over channels. At first, half of the changed pixels are frozen at once. If an
    attempt fails at the largest c, the last success is restored and half as many pixels are frozen, down to one; the
    search ends when not even the least important pixel can be frozen. Each attempt starts from the last success and
    stops at its first success. After a failure, c is multiplied by ten. The model is the only source of randomness.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `targeted`.
        steps: maximum number of gradients per attempt; one more gradient ranks the pixels of a success.
        search_steps: maximum number of attempts.
        initial_const: initial c, the weight of the margin against the squared norm.
        largest_const: largest c; an attempt has failed if a higher one would be needed.
        step_size: Adam's learning rate in tanh space: a pixel moves by at most half of it per step.
        confidence: margin in logits by which the wrong class must win, at least 0.
        targeted: whether `labels` are target classes.
        make_objective: makes an objective of the margin: `one_draw_loss`, or `partial(expected_loss, 8)` for a random
            model. Success is judged by the mean margin of the same draws, so the norms found for a random model are too
            small (see `Search`).

    Returns:
        Images in [0, 1], (N, C, H, W), with the inputs' device and dtype: for each image the adversarial version with
        the fewest changed pixels. Inputs that are adversarial already, or for which nothing was found, are returned
        unchanged.

    Raises:
        ArgumentError: inputs or labels are invalid (see `check_inputs` and `check_labels`), `steps` or `search_steps`
            is below 1, a number is negative, or the model has no gradient.
    """
    search = Search(
        model, inputs, labels, norm="l0", make_objective=make_objective, confidence=confidence, targeted=targeted
    )
    check_positive(steps, "steps")
    check_positive(search_steps, "search_steps")
    check_not_negative(initial_const, "initial_const")
    check_not_negative(largest_const, "largest_const")
    check_not_negative(step_size, "step_size")
    with eval_mode(model):
        rows = search.rows_to_attack()
        pixels = _Pixels(search.inputs)
        c = search.norms.new_full((len(search.inputs),), initial_const)
        successful_c = c.clone()
        for _ in range(search_steps):
            start, free = search.images[rows], pixels.free(rows)
            options = {"steps": steps, "step_size": step_size, "stop_at_success": True, "free": free}
            found, _ = descend(search, rows, start, c[rows], squared_l2, **options)
            succeeded, failed = rows[found], rows[~found]
            exhausted = failed[10 * c[failed] > largest_const]
            pixels.rank(succeeded, search)
            pixels.back_off(exhausted)
            successful_c[succeeded], c[failed] = c[succeeded], 10 * c[failed]
            c[exhausted] = successful_c[exhausted]
            decided = torch.zeros_like(search.found).index_fill(0, torch.cat([succeeded, exhausted]), True)
            ended = decided & (pixels.num_frozen == 0)
            rows = rows[~ended[rows]]
            if not len(rows):
                break
    return search.images


class _Pixels:
    """For each image: the positions changed by its last success, their ranks, and the number to freeze."""

    def __init__(self, inputs: Float[Tensor, "n c h w"]) -> None:
        self.changed = torch.ones_like(inputs[:, :1], dtype=torch.bool)
        self.ranks = torch.zeros_like(self.changed, dtype=torch.int64)
        self.num_frozen = self.ranks.new_zeros(len(inputs))
        self.frozen_fraction = at_least_float32(inputs).new_full((len(inputs),), INITIAL_FROZEN_FRACTION)

    def free(self, rows: Int[Tensor, " m"]) -> Bool[Tensor, "m 1 h w"]:
        """Return the mask of positions that may change."""
        return self.changed[rows] & (self.ranks[rows] >= self.num_frozen[rows].view(-1, 1, 1, 1))

    def rank(self, rows: Int[Tensor, " m"], search: Search) -> None:
        """Record the positions changed by the last success of `rows`, ordered by their contribution to the margin."""
        if not len(rows):
            return
        delta = at_least_float32(search.images[rows]) - at_least_float32(search.inputs[rows])
        _, margin_gradient = search.judge(search.images[rows], rows)
        changed = (delta != 0).any(1, keepdim=True)
        contribution = (margin_gradient * delta).sum(1, keepdim=True).masked_fill(~changed, torch.inf)
        count = changed.flatten(1).sum(1)
        self.changed[rows] = changed
        self.ranks[rows] = contribution.flatten(1).argsort(1).argsort(1).view_as(contribution)
        self.num_frozen[rows] = torch.minimum((self.frozen_fraction[rows] * count).long().clamp_min(1), count - 1)

    def back_off(self, rows: Int[Tensor, " m"]) -> None:
        """Freeze half as many of the same positions; none if a single one was too many."""
        self.frozen_fraction[rows] /= 2
        self.num_frozen[rows] //= 2
