"""Choice of target classes for attacks that target several wrong classes in turn."""

import torch
from jaxtyping import Int
from torch import Tensor

from smoothed.attacks.losses import margin
from smoothed.attacks.max_loss.recorded import Recorded
from smoothed.attacks.objectives import ObjectiveFactory, one_draw_loss
from smoothed.utils.checks import check_positive, check_values
from smoothed.utils.modes import Classifier


@torch.no_grad()
def best_wrong_classes(
    model: Classifier,
    inputs: Tensor,
    labels: Tensor,
    num_targets: int | None = None,
    make_objective: ObjectiveFactory = one_draw_loss,
) -> Int[Tensor, "targets n"]:
    """Return the wrong classes of each image, ordered by their mean logits in one evaluation of an objective.

    Args:
        model: any callable from images to logits (N, K); it may be random.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,).
        num_targets: maximum number of classes per image; None for all K - 1.
        make_objective: makes an objective of a loss, and so determines the number of draws.

    Returns:
        Classes (T, N), int64: in row t, the wrong class of each image with the (t + 1)-th largest logit.

    Raises:
        ArgumentError: `num_targets` is below 1, the model does not return logits, or labels are not among its classes.
    """
    recorded = Recorded(model)
    count = None if num_targets is None else check_positive(num_targets, "num_targets")
    check_values(make_objective(margin)(recorded, inputs, labels), len(labels), "make_objective")
    wrong = recorded.logits.scatter(1, labels[:, None], -torch.inf)
    return wrong.argsort(1, descending=True)[:, :-1][:, :count].T
