"""The tally of a vote: scores summed over draws, with vote shares and winning classes."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.utils.checks import check_choice, check_generator

Ties = Literal["lowest", "random"]

SMALLEST_SHARE = 5e-7
"""The share of half a vote in a million draws, which replaces a share of 0 so that logarithms are finite."""


@dataclass(frozen=True)
class Tally:
    """Scores summed over draws.

    Attributes:
        scores: (N, K), the sum of each class's scores over the draws.
        num_samples: (N,) int64, the number of draws of each image.
    """

    scores: Float[Tensor, "n k"]
    num_samples: Int[Tensor, " n"]

    @property
    def shares(self) -> Float[Tensor, "n k"]:
        """Each class's share of the scores, (N, K), rows summing to 1; equal shares if all scores are 0."""
        total = self.scores.sum(1, keepdim=True)
        return torch.where(total > 0, self.scores / total.clamp_min(1e-30), 1 / self.scores.shape[1])

    @property
    def log_probs(self) -> Float[Tensor, "n k"]:
        """Logarithms of the shares, (N, K), for tools that expect logits; shares are at least `SMALLEST_SHARE`."""
        return log_shares(self.shares)

    def classes(self, ties: Ties = "lowest", generator: torch.Generator | None = None) -> Int[Tensor, " n"]:
        """Return the classes with the highest scores, (N,) int64.

        Args:
            ties: which of several tied classes wins: the `lowest`, as in the paper, or one chosen at `random`.
            generator: random generator for ties, on the scores' device; None for torch's default generator.

        Raises:
            ArgumentError: `ties` is unknown, or `generator` is no generator.
        """
        check_choice(ties, ("lowest", "random"), "ties")
        check_generator(generator)
        if ties == "lowest":
            return self.scores.argmax(1)
        winning = self.scores == self.scores.amax(1, keepdim=True)
        random_scores = torch.rand(self.scores.shape, generator=generator, device=self.scores.device)
        return torch.where(winning, random_scores, -1.0).argmax(1)

    @property
    def tied(self) -> Bool[Tensor, " n"]:
        """Whether several classes share the highest score, (N,) bool."""
        return (self.scores == self.scores.amax(1, keepdim=True)).sum(1) > 1


def log_shares(shares: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Return logarithms of shares (N, K); shares below `SMALLEST_SHARE` are replaced by it."""
    return shares.clamp_min(SMALLEST_SHARE).log()
