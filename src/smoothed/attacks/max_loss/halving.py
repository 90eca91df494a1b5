"""When Auto-PGD halves its step: at checkpoints, by how the objective of each image went (Croce and Hein, 2020)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# The paper's rho: the share of steps that must rise for the step size to stay.
RISING = 0.75


def checkpoints(steps: int) -> list[int]:
    """The steps w_j = ceil(p_j `steps`) with p_1 = 0.22 and p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)."""
    found, previous, share = list[int](), 0, 22  # in hundredths, so that nothing is rounded
    while share <= 100:
        found.append(-(-share * steps // 100))
        previous, share = share, share + max(share - previous - 3, 6)
    return sorted(set(found))


class Halving:
    """The step size of each image.

    Args:
        size: to begin with, (N, 1, 1, 1), in pixel units of [0, 1].
        values: the objective at the start, (N,).
        steps: how many are planned.
    """

    def __init__(self, size: Float[Tensor, "n 1 1 1"], values: Float[Tensor, " n"], steps: int) -> None:
        self.size = size
        self.checkpoints = checkpoints(steps)
        self._checked = 0
        self._rises = torch.zeros_like(values)
        self._highest = values
        self._halved = torch.zeros_like(values, dtype=torch.bool)

    def after(self, step: int, rose: Bool[Tensor, " n"], highest: Float[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        """Take note of a step, and at a checkpoint halve sizes.

        Args:
            step: its number, from 1.
            rose: whether it raised the objective, (N,).
            highest: the highest objective so far, (N,).

        Returns:
            Whose size was halved, (N,), which is to go on from its best point; None between checkpoints.
        """
        self._rises = self._rises + rose
        if step not in self.checkpoints:
            return None
        few_rises = self._rises < RISING * (step - self._checked)
        stuck = ~self._halved & (highest == self._highest)
        self._halved = few_rises | stuck
        self.size = torch.where(self._halved.view(-1, 1, 1, 1), self.size / 2, self.size)
        self._checked, self._rises, self._highest = step, torch.zeros_like(self._rises), highest
        return self._halved
