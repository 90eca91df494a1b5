"""The gradient of an objective with respect to the inputs only: weights and their `.grad` are left unchanged."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.attacks.objectives import Objective
from smoothed.attacks.streaming import differentiate
from smoothed.utils.modes import Classifier


def input_gradient(
    objective: Objective, model: Classifier, inputs: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """Return the gradient of the objective, summed over images, with respect to `inputs`, (N, C, H, W).

    Raises:
        ArgumentError: the model's logits are not differentiable with respect to the inputs.
    """
    with torch.enable_grad():
        inputs = inputs.detach().requires_grad_()
        return differentiate(objective(model, inputs, labels), inputs)
