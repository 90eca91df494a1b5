"""Exponential average of the weights, which often is more robust than the weights of the last step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def average_weights(model: nn.Module, decay: float) -> AveragedModel:
    """Create an exponential average of the weights of `model`.

    The decay at update t is min(decay, (1 + t) / (10 + t)), so that the initial weights are soon forgotten.
    Floating-point buffers (batch statistics) are averaged in the same way; integer buffers are copied.

    Args:
        model: network in training.
        decay: weight of the old average in each update, in [0, 1]; 0 copies the model.

    Returns:
        The average; call its `update_parameters(model)` after each step. Its `.module` is the averaged network.
    """

    @torch.no_grad()
    def update(averages: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
        step = int(count)
        weight = 1 - min(decay, (1 + step) / (10 + step))
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value.to(average.device), weight)
            else:
                average.copy_(value)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
