"""An exponential average of the weights: smoother than the last step's, and more robust."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def average_weights(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` to call `update_parameters(model)` on after each step; its `.module` is the average.

    Early in a run the decay is (1 + t) / (10 + t) where that is smaller, so the initial weights are soon forgotten.
    Floating-point buffers (batch statistics) are averaged likewise, whole numbers are taken over.

    Args:
        model: the network that is trained.
        decay: in [0, 1]; 0 follows the model.
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
