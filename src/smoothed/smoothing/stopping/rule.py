"""The interface of stopping rules: the problem, the state of a vote, and the monitor that a rule creates."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from smoothed.smoothing.votes import Vote

UNIT_ROUNDOFF = 2.0**-24
"""The maximum relative rounding error of an addition in float32, in which scores are summed draw by draw."""


@dataclass(frozen=True, eq=False)
class VoteState:
    """Sums over the draws of the undecided images.

    Attributes:
        scores: (N, K) float32, sum of each class's scores.
        squares: (N, K) float32, sum of the squares of each class's scores; for counts they equal the counts.
        drawn: number of draws n of each of these images.
    """

    scores: Tensor
    squares: Tensor
    drawn: int


Monitor = Callable[[VoteState], Tensor]
"""A function from the state of the undecided images to int64 (N,): the minimum number of further draws that each image
needs before it may stop. 0 stops an image now; 1 is a valid answer for every image that continues. Images keep their
order. The function is called neither at the last draw nor before the earliest draw at which an image may stop."""


@dataclass(frozen=True)
class StoppingProblem:
    """One vote on a batch of images, whose undecided images all have the same number of draws.

    Attributes:
        vote: the function whose scores are summed.
        total: maximum number of draws per image, M.
        images: number of images N.
    """

    vote: Vote
    total: int
    images: int


class StoppingRule(Protocol):
    """A rule that decides when the vote on an image may stop.

    Any object with this method is a rule. A new monitor is created for each vote, so monitors may keep state.

    Example:
        >>> import torch
        >>> from smoothed import Gaussian, Smoothed
        >>> class Lead:
        ...     def monitor(self, problem):
        ...         def draws_needed(state):
        ...             first, second = state.scores.topk(2).values.T
        ...             return (first - second < 3).long()
        ...         return draws_needed
        >>> model = lambda inputs: inputs.mean((2, 3))
        >>> smoothed = Smoothed(model, Gaussian(0.01), num_samples=100, seed=0)
        >>> inputs = torch.tensor([0.1, 0.9]).view(1, 2, 1, 1).expand(5, 2, 4, 4)
        >>> smoothed.tally(inputs, stop=Lead())["prediction"][100].num_samples
        tensor([3, 3, 3, 3, 3])
    """

    def monitor(self, problem: StoppingProblem) -> Monitor:
        """Create the monitor of one vote.

        Args:
            problem: the vote, its maximum number of draws, and the number of images.

        Returns:
            The function that decides which images stop (`Monitor`).
        """
        ...
