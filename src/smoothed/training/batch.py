"""A step's batch: which images it holds, and how processes, and parts within a process, divide it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothed.data.augment import augment
from smoothed.data.images import Images
from smoothed.data.imageset import to_float
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Rows
from smoothed.rng.seeds import mix, seeded

# Which stream of randomness a key belongs to, so that no two uses ever share one. Initial weights have stream 0.
ORDER, CROPS, NOISE, ROWS, VALIDATION = range(1, 6)


@dataclass(frozen=True)
class Share:
    """Which pieces of every batch a process has: `parts` of them, of `processes` times as many in all."""

    process: int = 0
    processes: int = 1
    parts: int = 1

    def cuts(self, total: int) -> list[range]:
        """The rows of each piece of a batch of `total` images, over all processes; sizes differ by one at most."""
        pieces = self.processes * self.parts
        if total < pieces:
            raise ArgumentError("batch_size", f"at least {pieces}, an image for each part of each process", total)
        return [range(total * i // pieces, total * (i + 1) // pieces) for i in range(pieces)]

    def own(self, total: int) -> list[range]:
        """This process's pieces, which follow each other."""
        return self.cuts(total)[self.process * self.parts : (self.process + 1) * self.parts]

    def beside(self, total: int, part: int) -> list[range]:
        """The pieces that all processes have in hand at their `part`-th."""
        return self.cuts(total)[part :: self.parts]


@dataclass(frozen=True)
class Part:
    """The images that a process differentiates at once.

    Attributes:
        clean: images in [0, 1], (n, C, H, W), channels-last.
        labels: (n,).
        index: where the images are in the training set, (n,).
        places: where they are in the whole batch, (n,).
        total: images of the whole batch.
        epoch: from 0.
        progress: of the run, in [0, 1].
        rows: randomness that follows the images.
    """

    clean: Tensor
    labels: Tensor
    index: Tensor
    places: Tensor
    total: int
    epoch: int
    progress: float
    rows: Rows


@dataclass(frozen=True)
class Batch:
    """This process's share of one step's batch, loaded but not yet augmented.

    Attributes:
        step: of the run, from 0.
        number: of the batch in the run, from 0: one number for all steps on it.
        epoch: from 0.
        ends_epoch: whether the epoch's last step is this one.
        progress: of the run before this step, in [0, 1].
        images: uint8, (n, C, H, W).
        labels: (n,).
        index: where the images are in the training set, (n,), on the CPU.
        total: images of the whole batch.
    """

    step: int
    number: int
    epoch: int
    ends_epoch: bool
    progress: float
    images: Tensor
    labels: Tensor
    index: Tensor
    total: int

    def parts(self, share: Share, seed: int) -> Iterator[Part]:
        """The parts of this share, augmented; all that is random follows (seed, step, image), not the division.

        Each step on a batch sees the same crops: what one of them learned of an image's pixels holds for the next.
        """
        device = self.images.device
        pieces = share.own(self.total)
        begin = pieces[0].start
        crops = seeded(mix(seed, CROPS, self.number))
        images = to_float(augment(self.images, crops, first=begin, total=self.total))
        for piece in pieces:
            here = slice(piece.start - begin, piece.stop - begin)
            yield Part(
                images[here].contiguous(memory_format=torch.channels_last),
                self.labels[here],
                self.index[here],
                torch.arange(piece.start, piece.stop, device=device),
                self.total,
                self.epoch,
                self.progress,
                Rows(mix(seed, ROWS, self.step), piece.start),
            )


@dataclass(frozen=True)
class Plan:
    """Which images every step of a run sees: a function of the seed alone.

    Args:
        images: in the training set.
        batch_size: of the whole batch; a smaller set is one batch.
        epochs: passes over the set.
        replays: steps on each batch.
        seed: of the order.
    """

    images: int
    batch_size: int
    epochs: int
    replays: int
    seed: int

    @property
    def total_per_batch(self) -> int:
        """Images of a whole batch."""
        return min(self.batch_size, self.images)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass; images that don't fill a batch wait for the next epoch."""
        return self.images // self.total_per_batch * self.replays

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def batches(self, data: Images, share: Share, step: int) -> Iterator[Batch]:
        """This process's share of every batch from `step` on."""
        total = self.total_per_batch
        own = share.own(total)
        rows = slice(own[0].start, own[-1].stop)
        for epoch in range(step // self.steps_per_epoch, self.epochs):
            first = max(step, epoch * self.steps_per_epoch)
            order = torch.randperm(self.images, generator=seeded(mix(self.seed, ORDER, epoch)))
            indices = [batch[rows] for batch in order.split(total) if len(batch) == total]
            done = (first - epoch * self.steps_per_epoch) // self.replays
            loaded = data.load(indices[done:], seed=mix(self.seed, CROPS, epoch))
            for number, (images, labels) in enumerate(loaded, start=done):
                for replay in range(self.replays):
                    now = epoch * self.steps_per_epoch + number * self.replays + replay
                    if now < first:
                        continue
                    ends = now == (epoch + 1) * self.steps_per_epoch - 1
                    progress = now / self.steps
                    yield Batch(now, now // self.replays, epoch, ends, progress, images, labels, indices[number], total)
