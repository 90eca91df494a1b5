"""Votes that take all draws on kept images, with the number of draws at which the exact rule could have stopped."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.sharding import shard_of
from smoothed.smoothing.stopping import Exact, Monitor, StoppingProblem, VoteState
from smoothed.smoothing.tally import Tally
from smoothed.smoothing.votes import Vote, resolve
from smoothed.utils.distributed import Processes

TakeTally = Callable[["ExactButKept"], dict[str, dict[int, Tally]]]
"""A function from a stopping rule to tallies by name of the vote, then by M."""

RECORD = ("shares", "decided_after")
"""Names of the tensors of `tally_and_record`."""


class ExactButKept:
    """The exact rule, except that the first images of a batch take all draws; it records when they could have stopped.

    Args:
        kept: number of images that take all draws.
    """

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self._monitors: list[_Recorder] = []

    def monitor(self, problem: StoppingProblem) -> Monitor:
        """See `StoppingRule.monitor`."""
        self._monitors.append(_Recorder(problem, self.kept))
        return self._monitors[-1]

    def stops(self, vote: Vote, total: int) -> Int[Tensor, " kept"]:
        """Number of draws at which the exact rule stops the vote of `total` draws on each kept image."""
        found = (each.stops for each in self._monitors if each.problem.vote is vote and each.problem.total == total)
        return next(found, torch.full((self.kept,), total))


class _Recorder:
    """The monitor of one vote at one M.

    Attributes:
        problem: the vote.
        stops: number of draws at which the exact rule stops each kept image, (kept,).
    """

    def __init__(self, problem: StoppingProblem, kept: int) -> None:
        self.problem = problem
        self.stops = torch.full((kept,), problem.total)
        self._draws_needed = Exact().monitor(problem)
        self._undecided = torch.arange(problem.images)

    def __call__(self, state: VoteState) -> Int[Tensor, " n"]:
        """The further draws of the undecided images; a kept image needs all that remain."""
        needed = self._draws_needed(state).cpu()
        recorded = (needed <= 0) & (self._undecided < len(self.stops))
        images = self._undecided[recorded]
        self.stops[images] = self.stops[images].clamp_max(state.drawn)  # the first of several times
        needed[recorded] = self.problem.total - state.drawn
        self._undecided = self._undecided[needed > 0]
        return needed


def tally_and_keep(
    take_tally: TakeTally, votes: Mapping[str, Vote], images: int, kept: int, processes: Processes
) -> tuple[dict[str, dict[int, Tally]], dict[str, dict[int, Int[Tensor, " n"]]]]:
    """Take votes that stop as soon as no further draw can change the class, except on kept images.

    Args:
        take_tally: takes the votes with the given rule, shared by `processes`.
        votes: the functions of the votes by name.
        images: number of images N.
        kept: number of images, from the first on, whose tallies are those of all draws.
        processes: processes that share the votes.

    Returns:
        The tallies by name of the vote, then by M; and the number of draws at which each image was or could have been
        stopped, (N,), by the same keys. Where processes divide the draws of an image, no image stops early.
    """
    start, end = shard_of(images, processes)
    rule = ExactButKept(min(max(kept - start, 0), end - start))
    tallies = take_tally(rule)
    draws = {name: {total: tally.num_samples.cpu() for total, tally in of.items()} for name, of in tallies.items()}
    if kept:
        own = {name: {total: rule.stops(votes[name], total) for total in of} for name, of in tallies.items()}
        parts = processes.gather(own)
        for name, of in draws.items():
            for total, taken in of.items():
                of[total] = torch.cat([*(part[name][total] for part in parts), taken[kept:]])
    return tallies, draws


def recorded_samples(num_samples: int) -> tuple[int, ...]:
    """Numbers of draws at which `tally_and_record` reads a vote: 1, 2, 4, ... below `num_samples`, and that itself."""
    powers = (1 << place for place in range(num_samples.bit_length()))
    return (*(power for power in powers if power < num_samples), num_samples)


def tally_and_record(
    smoothed: Smoothed,
    images: Tensor,
    vote: str | Vote,
    num_samples: int,
    *,
    kept: int,
    generator: torch.Generator,
) -> tuple[dict[str, Tally], dict[str, Tensor]]:
    """Take one vote of `num_samples` draws, all of which are made, and record how it came about on the first images.

    Args:
        smoothed: smoothed classifier; its own vote and number of draws are not used.
        images: images in [0, 1], (N, C, H, W).
        vote: name or function of the vote.
        num_samples: number of draws M.
        kept: number of images, from the first on, whose vote is recorded.
        generator: source of the seed of the draws.

    Returns:
        The tallies of all M draws: of `vote`, and of the prediction vote by the same draws as `prediction`. The record
        on the CPU, at the numbers of draws of `recorded_samples`: `shares`, (Ms, kept, K) float32, and `decided_after`,
        (Ms, kept) int32, the draws after which no further one could change the class, by the exact rule.
    """
    votes = {"vote": resolve(vote), "prediction": resolve("prediction")}
    counts, rule = recorded_samples(num_samples), ExactButKept(len(images))
    tallies = smoothed.tally(images, counts, votes=votes, stop=rule, generator=generator)
    record = {
        "shares": torch.stack([tallies["vote"][count].shares[:kept].float() for count in counts]),
        "decided_after": torch.stack([rule.stops(votes["vote"], count)[:kept].int() for count in counts]),
    }
    whole = {name: by_count[num_samples] for name, by_count in tallies.items()}
    return whole, {name: tensor.cpu() for name, tensor in record.items()}


def joined_records(batches: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The record of several batches of images, in their order; batches without one are left out."""
    return {
        name: torch.cat([batch[name] for batch in batches if name in batch], 1)
        for name in RECORD
        if any(name in batch for batch in batches)
    }
