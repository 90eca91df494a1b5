"""Turns of the engine: passes shared by many requests, and votes with their own seed, which run alone."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.serve.counting import Count
from smoothed.serve.secret import SecretSeed
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.sampling import Sampler
from smoothed.smoothing.tally import Tally

_log = logging.getLogger("smoothed.serve")

PassCounter = Callable[[int, int], None]
"""Called after each turn of work on votes with its number of images and of draws, over all images."""


@dataclass(frozen=True)
class VoteOutcome:
    """The votes of one image.

    Attributes:
        tally: scores (1, K) of the counted draws, and their number.
        ended: why they ended: `num_samples`, `deadline`, or the name of the rule.
    """

    tally: Tally
    ended: str


@dataclass(eq=False)
class VoteJob:
    """A vote that a client waits for.

    Attributes:
        image: pixels in [0, 1], (C, H, W).
        count: the votes so far.
        rule: name of the stopping rule; empty for none.
        sigma: deviation of the input noise in pixel units; None for the model's own.
        deadline: value of `time.monotonic` after which the votes counted so far are returned (after at least one pass);
            None for no deadline.
        future: receives the outcome. The client has gone if it is cancelled.
    """

    image: Float[Tensor, "c h w"]
    count: Count
    rule: str = ""
    sigma: float | None = None
    deadline: float | None = None
    future: "Future[VoteOutcome]" = field(default_factory=Future)

    def ends(self, now: float) -> bool:
        """Set the result of `future` if the vote is decided or its deadline has passed.

        Returns:
            Whether the job is finished.
        """
        if self.future.done():  # it has failed, or its client has gone
            return True
        if self.count.decided:
            self._finish(self.rule if self.count.stopped else "num_samples")
            return True
        if self.count.taken and self.deadline is not None and now >= self.deadline:
            self.settle()
            self._finish("deadline")
            return True
        return False

    def add(self, logits: Float[Tensor, "d k"]) -> None:
        """Take the logits of the next draws. An error of this image ends its vote alone."""
        self._guarded(lambda: self.count.add(logits))

    def settle(self) -> None:
        """Count all draws that were made."""
        self._guarded(self.count.settle)

    def fail(self, error: BaseException) -> None:
        """Hand over an error."""
        with suppress(InvalidStateError):  # the client has gone
            self.future.set_exception(error)

    def _guarded(self, work: Callable[[], None]) -> None:
        if self.future.done():
            return
        try:
            work()
        except Exception as error:  # votes may be the user's own code
            _log.exception("a vote failed")
            self.fail(error)

    def _finish(self, ended: str) -> None:
        if self.future.done():
            return
        with suppress(InvalidStateError):
            self.future.set_result(VoteOutcome(self.count.tally, ended))


class Turn(Protocol):
    """Work that is done piece by piece, in turn with other work."""

    @property
    def ready(self) -> bool:
        """Whether there is something to do now."""
        ...

    def step(self) -> bool:
        """Do a piece of work of a few passes at most; whether more remains."""
        ...

    def fail(self, error: BaseException) -> None:
        """End all of it with an error."""
        ...


class PassSize:
    """Adaptive number of rows of a shared pass, which limits how long new requests and deadlines wait.

    Args:
        seconds: time that a pass should take at most, where it can have fewer draws.
    """

    LARGEST = 2**12

    def __init__(self, seconds: float = 0.05) -> None:
        self.rows = self.LARGEST
        self._seconds = seconds

    def took(self, rows: int, seconds: float) -> None:
        """Adapt to a measured pass: fewer rows if it exceeded the time limit, more if it took less than half of it."""
        if seconds > self._seconds:
            self.rows = max(1, int(rows * self._seconds / seconds))
        elif seconds < self._seconds / 2:
            self.rows = min(2 * self.rows, self.LARGEST)


class SharedPasses:
    """Passes that the votes of one input noise and one secret seed share.

    Each turn makes one pass over the undecided images. Where noise lies inside the network, all images of a pass share
    one draw of the weight noise, as in a batch. Every pass takes new draws, so two votes of one image never share one.

    Args:
        smoothed: the classifier with the input noise of these votes.
        seed: the secret seed.
        image: an image of the size of all, (C, H, W).
        size: number of rows of a pass.
        on_pass: called after each pass with its number of images and of draws.
    """

    def __init__(
        self, smoothed: Smoothed, seed: SecretSeed, image: Tensor, size: PassSize, on_pass: PassCounter
    ) -> None:
        self.seed = seed
        # A trial of stacked draws is worth its time, because the result serves many votes.
        self._sampler = replace(smoothed.sampler(image[None], 1, seed=seed.value), stacks=True)
        self._size = size
        self._on_pass = on_pass
        self._jobs: list[VoteJob] = []
        self._images: Tensor | None = None

    ready = True

    def join(self, job: VoteJob) -> None:
        """Take part from the next pass on."""
        self._jobs.append(job)
        self._images = None

    def step(self) -> bool:
        """Make the next pass; whether undecided images remain."""
        self._leave()
        if self._jobs:
            begun, images = time.monotonic(), self._stacked()
            rows = (self._pass_of_rows if self._sampler.pack_draws else self._pass_of_draws)(images)
            self._on_pass(len(images), rows)
            self._size.took(rows, time.monotonic() - begun)
            self._leave()
        return bool(self._jobs)

    def fail(self, error: BaseException) -> None:
        """See `Turn`."""
        for job in self._jobs:
            job.fail(error)
        self._jobs = []

    def _leave(self) -> None:
        now = time.monotonic()
        remaining = [job for job in self._jobs if not job.ends(now)]
        if len(remaining) < len(self._jobs):
            self._jobs, self._images = remaining, None

    def _stacked(self) -> Float[Tensor, "a c h w"]:
        if self._images is None:
            images = torch.stack([job.image for job in self._jobs])
            self._images = self._sampler.noisy_classifier.in_memory_format(images)
        return self._images

    def _pass_of_draws(self, images: Float[Tensor, "a c h w"]) -> int:
        """One or, for few images, several draws of the network, each over all images; the number of rows."""
        allowed = min(job.count.allowed for job in self._jobs)
        draws = self._sampler.draws_to_compute(images, 1, min(allowed, max(1, self._size.rows // len(images))))
        numbers = torch.arange(len(images))
        logits = self._sampler.logits(images, numbers, self.seed.take(draws), draws)
        for job, own in zip(self._jobs, logits.unbind(1), strict=True):
            job.add(own)
        return draws * len(images)

    def _pass_of_rows(self, images: Float[Tensor, "a c h w"]) -> int:
        """A pass of independent rows, each a draw of one image, divided among the images; the number of rows."""
        share = max(1, min(self._sampler.chunk_size, self._size.rows) // len(images))
        shares = torch.tensor([min(job.count.allowed, share) for job in self._jobs])
        first = self.seed.take(int(shares.max()))
        rows = torch.arange(len(images)).repeat_interleave(shares)
        draws = first + torch.cat([torch.arange(draws) for draws in shares.tolist()])
        logits = self._sampler.logits_of_rows(images, rows, draws, rows)
        for job, own in zip(self._jobs, logits.split(shares.tolist()), strict=True):
            job.add(own)
        return len(rows)


class SoloVote:
    """A vote with a seed of its own: the draws, passes and answer of the first call of `Smoothed(..., seed=seed)`.

    Args:
        smoothed: the classifier of this vote, made with the seed.
        job: the vote.
        on_pass: called after each turn with its number of images and of draws.
    """

    def __init__(self, smoothed: Smoothed, job: VoteJob, on_pass: PassCounter) -> None:
        self._job = job
        self._images = job.image[None]
        self._sampler = smoothed.sampler(self._images, job.count.total)
        self._on_pass = on_pass
        self._planned: list[int] = []
        self._made: list[Tensor] = []

    ready = True

    def step(self) -> bool:
        """Make about one pass of the draws that `Smoothed` would make next; whether more remain."""
        count, made = self._job.count, self._made
        if self._job.ends(time.monotonic()):
            return False
        if not self._planned:
            required = count.required if count.taken and self._job.deadline is None else 1
            draws = self._sampler.draws_to_compute(self._images, required, count.allowed)
            self._planned = passes_of_draws(self._sampler, self._images, draws)
        draws = self._planned.pop(0)
        made.append(self._sampler.logits(self._images, torch.arange(1), count.taken + sum(map(len, made)), draws)[:, 0])
        self._on_pass(1, draws)
        if self._planned:
            return True
        self._job.add(torch.cat(made))
        self._job.settle()
        made.clear()
        return not self._job.ends(time.monotonic())

    def fail(self, error: BaseException) -> None:
        """See `Turn`."""
        self._job.fail(error)


def passes_of_draws(sampler: Sampler, images: Float[Tensor, "1 c h w"], draws: int) -> list[int]:
    """Divide draws of one image as `Sampler.logits` divides them into passes, so that each can be a turn of its own.

    Rounding depends on how many draws share a pass. A single draw at the end stays with those before it, since
    `Sampler.logits` stacks it with them but would not stack it alone.
    """
    together = sampler.draws_to_compute(images, 1, 1 + draws)
    if sampler.pack_draws:
        return [len(part) for part in torch.arange(draws).tensor_split(-(-draws // sampler.chunk_size))]
    sizes = [min(together, draws - start) for start in range(0, draws, together)]
    if together > 1 and len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [together + 1]
    return sizes
