"""What a rule is asked and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from smoothed.smoothing.votes import Vote

ROUNDING = 2.0**-24
"""Of one addition in float32, as a share of its result: scores are added up in it, one draw after another."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What the draws of the images that still go on have come to, float32.

    Attributes:
        scores: their sum, (N, K).
        squares: the sum of the squares of each draw's scores, (N, K). Of counts, these are the counts.
        drawn: n, the draws that each of the images has had.
    """

    scores: Tensor
    squares: Tensor
    drawn: int


Watch = Callable[[Seen], Tensor]
"""From what is seen of the images that still go on, in their order, to integers (N,): how many draws more each needs at
least before it may stop; 0 for one that stops now. A watch that can't look ahead says 1. It is not asked at the last
draw, nor again before one of the images may stop."""


@dataclass(frozen=True)
class Question:
    """The vote on some images, all of which take their draws in step.

    Attributes:
        vote: whose scores are summed.
        total: M, the draws that an image takes at most.
        images: how many they are, N.
    """

    vote: Vote
    total: int
    images: int


class Stop(Protocol):
    """A rule that says when the vote on an image may stop.

    Your own is any object with this method. A watch is made anew for each question, so it may keep what it has seen.

    Example:
        >>> import torch
        >>> from smoothed import Gaussian, Smoothed
        >>> class Lead:
        ...     def watch(self, question):
        ...         def needs(seen):
        ...             first, second = seen.scores.topk(2).values.T
        ...             return (first - second < 3).long()
        ...         return needs
        >>> model = lambda inputs: inputs.mean((2, 3))
        >>> smoothed = Smoothed(model, Gaussian(0.01), num_samples=100, seed=0)
        >>> inputs = torch.tensor([0.1, 0.9]).view(1, 2, 1, 1).expand(5, 2, 4, 4)
        >>> smoothed.tally(inputs, stop=Lead())["prediction"][100].num_samples
        tensor([3, 3, 3, 3, 3])
    """

    def watch(self, question: Question) -> Watch:
        """A watch over that question."""
        ...
