"""Which classes an attack on each of several wrong classes should go for."""

import torch
from jaxtyping import Int
from torch import Tensor

from smoothed.attacks.losses import margin
from smoothed.attacks.max_loss.recorded import Recorded
from smoothed.attacks.objectives import Draws, one_draw
from smoothed.utils.checks import check_positive
from smoothed.utils.modes import Classifier


@torch.no_grad()
def best_wrong_classes(
    model: Classifier, inputs: Tensor, labels: Tensor, num_targets: int | None = None, draws: Draws = one_draw
) -> Int[Tensor, "targets n"]:
    """The wrong classes of each image, by the mean of their logits over the draws of one evaluation, best first.

    Args:
        model: any callable from images to logits (N, K); it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,).
        num_targets: how many at most; all K - 1 when None.
        draws: says how many draws that are.

    Returns:
        Classes (T, N), int64: the best wrong class of each image, the second, ...

    Raises:
        ArgumentError: no targets, a model without logits, labels outside their classes.
    """
    recorded = Recorded(model)
    count = None if num_targets is None else check_positive(num_targets, "num_targets")
    draws(margin)(recorded, inputs, labels)
    wrong = recorded.logits.scatter(1, labels[:, None], -torch.inf)
    return wrong.argsort(1, descending=True)[:, :-1][:, :count].T
