"""Step-size schedule of Auto-PGD (Croce and Hein, 2020): checkpoints at which stalled images get half the step size."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# The paper's rho: fraction of steps that must raise the objective; below it the step size is halved.
MIN_RISING_FRACTION = 0.75


def checkpoints(steps: int) -> list[int]:
    """Return the steps w_j = ceil(p_j `steps`) with p_1 = 0.22 and p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)."""
    result, previous, percent = list[int](), 0, 22  # integers, so that no p_j is rounded
    while percent <= 100:
        result.append(-(-percent * steps // 100))
        previous, percent = percent, percent + max(percent - previous - 3, 6)
    return sorted(set(result))


class Halving:
    """The step size of each image over an ascent.

    Args:
        size: initial step sizes in pixel units of [0, 1], (N, 1, 1, 1).
        values: objective at the start, (N,).
        steps: planned number of steps.

    Attributes:
        size: present step sizes in pixel units of [0, 1], (N, 1, 1, 1).
        checkpoints: steps after which step sizes may be halved.
    """

    def __init__(self, size: Float[Tensor, "n 1 1 1"], values: Float[Tensor, " n"], steps: int) -> None:
        self.size = size
        self.checkpoints = checkpoints(steps)
        self._last_checkpoint = 0
        self._rises = torch.zeros_like(values)
        self._highest_at_checkpoint = values
        self._halved = torch.zeros_like(values, dtype=torch.bool)

    def after(self, step: int, rose: Bool[Tensor, " n"], highest: Float[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        """Record the result of a step; at a checkpoint, halve the step size of images whose objective has stalled.

        Args:
            step: number of the step, from 1.
            rose: whether the step raised the objective, (N,).
            highest: highest objective so far, (N,).

        Returns:
            At a checkpoint, the images whose step size was halved, (N,) bool, which continue from their best point;
            otherwise None.
        """
        self._rises = self._rises + rose
        if step not in self.checkpoints:
            return None
        few_rises = self._rises < MIN_RISING_FRACTION * (step - self._last_checkpoint)
        stuck = ~self._halved & (highest == self._highest_at_checkpoint)
        self._halved = few_rises | stuck
        self.size = torch.where(self._halved.view(-1, 1, 1, 1), self.size / 2, self.size)
        self._last_checkpoint, self._rises, self._highest_at_checkpoint = step, torch.zeros_like(self._rises), highest
        return self._halved
