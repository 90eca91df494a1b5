"""The votes of one image, counted as its draws arrive, and when its rule lets it stop."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.errors import ArgumentError
from smoothed.smoothing.stopping import StoppingProblem, StoppingRule, VoteState
from smoothed.smoothing.tally import Tally
from smoothed.smoothing.votes import Vote, vote_bound


class Count:
    """Sums of one image's scores over its draws.

    Images of a shared pass have different numbers of draws, so each has its own counter. Draws are counted in groups,
    when the stopping rule is next evaluated; `settle` counts the remaining ones.

    Args:
        vote: function from logits to scores.
        total: largest number of draws, M.
        stop: rule that ends the draws early; None takes all of them.

    Attributes:
        taken: number of draws that were made.
        decided: whether no further draws are needed.
        stopped: whether the rule has ended the draws before M.
    """

    def __init__(self, vote: Vote, total: int, stop: StoppingRule | None = None) -> None:
        self.total = total
        self.taken = 0
        self.decided = False
        self.stopped = False
        self._vote = vote
        self._monitor = None if stop is None else stop.monitor(StoppingProblem(vote, total, images=1))
        self._next_check = total if stop is None else 1
        self._waiting: list[Tensor] = []
        self._counted = 0
        self._scores = self._squares = torch.zeros(())

    @property
    def required(self) -> int:
        """Number of further draws that are needed in any case."""
        return self._next_check - self.taken

    @property
    def allowed(self) -> int:
        """Largest number of draws to make at once, such that at most a third of all draws is wasted."""
        return min(self.total - self.taken, max(self.required, 1 + self.taken // 2))

    def add(self, logits: Float[Tensor, "d k"]) -> None:
        """Take the logits of the next draws. Those after the decision are not counted.

        Raises:
            ArgumentError: the logits are not finite, or the vote returns scores of another shape.
        """
        if self.decided:
            return
        self._waiting.append(logits)
        self.taken += len(logits)
        while not self.decided and self.taken >= self._next_check:
            self._count(self._next_check - self._counted)
            self._check()

    def settle(self) -> None:
        """Count all draws that were made."""
        if self.taken > self._counted:
            self._count(self.taken - self._counted)

    @property
    def tally(self) -> Tally:
        """The tally (1, K) of the counted draws."""
        return Tally(self._scores[None], torch.tensor([self._counted], device=self._scores.device))

    def _count(self, draws: int) -> None:
        rows = self._waiting[0] if len(self._waiting) == 1 else torch.cat(self._waiting)
        counted, rest = rows[:draws], rows[draws:]
        self._waiting = [rest] if len(rest) else []
        if not bool(counted.isfinite().all()):
            raise ArgumentError("model", "finite logits", "NaN or infinity")
        scores = self._vote(counted)
        if scores.shape != counted.shape:
            raise ArgumentError("vote", f"scores of shape {tuple(counted.shape)}", f"shape {tuple(scores.shape)}")
        scores = scores.to(torch.float32)
        self._scores = self._scores + scores.sum(0)
        if self._monitor is None or vote_bound(self._vote, counted.shape[1]).is_one_hot:
            self._squares = self._scores
        else:
            self._squares = self._squares + scores.square().sum(0)
        self._counted += draws

    def _check(self) -> None:
        """Evaluate the stopping rule, and record when it is to be evaluated next."""
        if self._counted < self.total:
            state = VoteState(self._scores[None], self._squares[None], self._counted)
            needed = 0 if self._monitor is None else int(self._monitor(state)[0])
            if needed > 0:
                self._next_check = min(self.total, self._counted + needed)
                return
            self.stopped = True
        self.decided = True
        self.taken, self._waiting = self._counted, []
