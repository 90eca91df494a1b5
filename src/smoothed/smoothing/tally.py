"""The tally of a vote: scores summed over draws, and what to read off it."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.utils.checks import check_choice

Ties = Literal["lowest", "random"]

# The share of half a vote in a million draws: finite logarithms, and no share that a real vote could have.
SMALLEST_SHARE = 5e-7


@dataclass(frozen=True)
class Tally:
    """Scores summed over draws.

    Attributes:
        scores: (N, K), the sum of each class's scores.
        num_samples: (N,) int64, the draws each image took.
    """

    scores: Float[Tensor, "n k"]
    num_samples: Int[Tensor, " n"]

    @property
    def shares(self) -> Float[Tensor, "n k"]:
        """The classes' shares of all scores, (N, K), rows summing to 1; equal shares where no class scored."""
        total = self.scores.sum(1, keepdim=True)
        return torch.where(total > 0, self.scores / total.clamp_min(1e-30), 1 / self.scores.shape[1])

    @property
    def log_probs(self) -> Float[Tensor, "n k"]:
        """Logarithms of the shares, (N, K), for tools that want logits; a share of 0 counts as `SMALLEST_SHARE`."""
        return log_shares(self.shares)

    def classes(self, ties: Ties = "lowest", generator: torch.Generator | None = None) -> Int[Tensor, " n"]:
        """The winners, (N,) int64.

        Args:
            ties: to the `lowest` class, as in the paper, or split at `random`.
            generator: of the random split, on the scores' device; torch's default one when None.
        """
        check_choice(ties, ("lowest", "random"), "ties")
        if ties == "lowest":
            return self.scores.argmax(1)
        winning = self.scores == self.scores.amax(1, keepdim=True)
        lots = torch.rand(self.scores.shape, generator=generator, device=self.scores.device)
        return torch.where(winning, lots, -1.0).argmax(1)

    @property
    def tied(self) -> Bool[Tensor, " n"]:
        """Whether two classes share the highest score, (N,) bool."""
        return (self.scores == self.scores.amax(1, keepdim=True)).sum(1) > 1


def log_shares(shares: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Logarithms of shares (N, K), a share of 0 counted as `SMALLEST_SHARE`."""
    return shares.clamp_min(SMALLEST_SHARE).log()
