"""The gradient of an objective with respect to the inputs alone: weights and their `.grad` stay as they are."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.attacks.objectives import Objective
from smoothed.attacks.streaming import differentiate
from smoothed.utils.modes import Classifier


def input_gradient(
    objective: Objective, model: Classifier, inputs: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """The gradient of the objective's sum over images, (N, C, H, W).

    Raises:
        ArgumentError: the model's logits don't depend on the inputs differentiably.
    """
    with torch.enable_grad():
        inputs = inputs.detach().requires_grad_()
        return differentiate(objective(model, inputs, labels), inputs)
