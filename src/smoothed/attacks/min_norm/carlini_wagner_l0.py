"""Carlini and Wagner's L0 attack (S&P 2017, section VI-B)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.attacks.min_norm.minimum import Search, wide
from smoothed.attacks.min_norm.tanh_descent import descend, squares
from smoothed.attacks.objectives import Draws, one_draw
from smoothed.utils.checks import check_not_negative, check_positive
from smoothed.utils.modes import Classifier, evaluating

# Of the positions that a success changed, the share that is frozen at once, until that fails.
FIRST_SHARE = 0.5


def carlini_wagner_l0(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    *,
    steps: int = 1000,
    search_steps: int = 40,
    initial_c: float = 1e-3,
    largest_c: float = 1e5,
    step_size: float = 0.01,
    confidence: float = 0.0,
    targeted: bool = False,
    draws: Draws = one_draw,
) -> Float[Tensor, "n c h w"]:
    """Adversarial inputs that differ in few pixels: the L2 attack, again and again, on ever fewer of them.

    A pixel is a position, all of its channels together, as in the authors' attack on colour images. After each success
    those that matter least are frozen at the input's values: those of the smallest sum over channels of the margin's
    gradient times delta. At first half of the free ones are frozen at once; where the attack then fails at the largest
    c, the last success is taken up again and half as many are frozen, down to one, so that the end is an image of which
    not even the least pixel could be spared. Each attack starts from the last success, ends at the first of its own,
    and raises c tenfold where there is none. Nothing is drawn but by the model.

    Args:
        model: any callable from images to logits (N, K), differentiable; it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach if `targeted`.
        steps: gradients of one attack, at most; one more ranks the pixels of a success.
        search_steps: attacks at most.
        initial_c: the first c.
        largest_c: where an attack has failed.
        step_size: Adam's, in tanh's space: a pixel moves by half of it at most.
        confidence: by how many logits the wrong class must win, at least 0.
        targeted: whether `labels` are what the attack wants.
        draws: turns the margin into an objective of a random model, such as `partial(expected_loss, 8)`. Success is
            judged on the same draws, by their mean margin: norms of a random model come out too small (see `Search`).

    Returns:
        Images in [0, 1], (N, C, H, W), of the inputs' device and dtype: of each the adversarial version with the fewest
        changed positions that was met; the inputs themselves where they succeed as they are, and where nothing was
        found.

    Raises:
        ArgumentError: inputs or labels as `check_inputs` and `check_labels` refuse them, no steps or attacks, a
            negative number, a model without gradients.
    """
    search = Search(model, inputs, labels, norm="l0", draws=draws, confidence=confidence, targeted=targeted)
    check_positive(steps, "steps")
    check_positive(search_steps, "search_steps")
    check_not_negative(initial_c, "initial_c")
    check_not_negative(largest_c, "largest_c")
    check_not_negative(step_size, "step_size")
    with evaluating(model):
        rows = search.standing()
        pixels = _Pixels(search.inputs)
        c = search.sizes.new_full((len(search.inputs),), initial_c)
        worked = c.clone()
        for _ in range(search_steps):
            start, free = search.images[rows], pixels.free(rows)
            options = {"steps": steps, "step_size": step_size, "until_found": True, "free": free}
            found, _ = descend(search, rows, start, c[rows], squares, **options)
            won, lost = rows[found], rows[~found]
            spent = lost[10 * c[lost] > largest_c]
            pixels.rank(won, search)
            pixels.back_off(spent)
            worked[won], c[lost] = c[won], 10 * c[lost]
            c[spent] = worked[spent]
            ended = torch.zeros_like(search.found).index_fill(0, torch.cat([won, spent]), True) & (pixels.number == 0)
            rows = rows[~ended[rows]]
            if not len(rows):
                break
    return search.images


class _Pixels:
    """Of each image: the positions that its last success changed, by what they matter, and how many to freeze next."""

    def __init__(self, inputs: Float[Tensor, "n c h w"]) -> None:
        self.kept = torch.ones_like(inputs[:, :1], dtype=torch.bool)
        self.ranks = torch.zeros_like(self.kept, dtype=torch.int64)
        self.number = self.ranks.new_zeros(len(inputs))
        self.share = wide(inputs).new_full((len(inputs),), FIRST_SHARE)

    def free(self, rows: Int[Tensor, " m"]) -> Bool[Tensor, "m 1 h w"]:
        """The positions that may still change."""
        return self.kept[rows] & (self.ranks[rows] >= self.number[rows].view(-1, 1, 1, 1))

    def rank(self, rows: Int[Tensor, " m"], search: Search) -> None:
        """Take the last success of `rows`: its positions, in the order of their share in the margin."""
        if not len(rows):
            return
        delta = wide(search.images[rows]) - wide(search.inputs[rows])
        _, slope = search.judge(search.images[rows], rows)
        kept = (delta != 0).any(1, keepdim=True)
        gain = (slope * delta).sum(1, keepdim=True).masked_fill(~kept, torch.inf)
        count = kept.flatten(1).sum(1)
        self.kept[rows] = kept
        self.ranks[rows] = gain.flatten(1).argsort(1).argsort(1).view_as(gain)
        self.number[rows] = torch.minimum((self.share[rows] * count).long().clamp_min(1), count - 1)

    def back_off(self, rows: Int[Tensor, " m"]) -> None:
        """Freeze half as many of the same positions: none where one was too many."""
        self.share[rows] /= 2
        self.number[rows] //= 2
