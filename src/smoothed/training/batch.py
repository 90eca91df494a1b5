"""The batches of a run: their images, and their division among processes and into parts within a process."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from smoothed.data.augment import Augmentation, draw_augmentation
from smoothed.data.images import Images
from smoothed.data.imageset import to_float
from smoothed.errors import ArgumentError
from smoothed.rng.rows import RowGenerator
from smoothed.rng.seeds import mix, seeded
from smoothed.training.streams import TrainingStream


@dataclass(frozen=True)
class Share:
    """Division of every batch into `processes * parts` pieces, and the process that holds `parts` of them.

    Attributes:
        process: index of the process, from 0.
        processes: number of processes.
        parts: number of pieces per process, which it computes one after the other.
    """

    process: int = 0
    processes: int = 1
    parts: int = 1

    def pieces(self, total: int) -> list[range]:
        """Rows of each piece of a batch of `total` images, for all processes. Sizes differ by at most one.

        Raises:
            ArgumentError: there are fewer images than pieces.
        """
        count = self.processes * self.parts
        if total < count:
            raise ArgumentError("batch_size", f"at least {count}, one image for each part of each process", total)
        return [range(total * i // count, total * (i + 1) // count) for i in range(count)]

    def own_pieces(self, total: int) -> list[range]:
        """The consecutive pieces of this process."""
        return self.pieces(total)[self.process * self.parts : (self.process + 1) * self.parts]

    def concurrent_pieces(self, total: int, part: int) -> list[range]:
        """The pieces that all processes compute at the same time: part number `part` of each."""
        return self.pieces(total)[part :: self.parts]


@dataclass(frozen=True)
class Part:
    """Images for one forward and backward pass of one process.

    Attributes:
        clean: augmented images in [0, 1], float (n, C, H, W), channels-last.
        labels: true classes, int64 (n,).
        index: indices of the images in the training set, int64 (n,).
        positions: indices of the images in the whole batch, int64 (n,).
        total: number of images of the whole batch.
        epoch: index of the epoch, from 0.
        progress: finished share of the run, in [0, 1].
        row_generator: random numbers that depend on an image's position in the whole batch, not on its part.
        augmentation: crops and flips that gave `clean`; None for images as they are.
        repetition: number of the pass of the step on these images, from 0.
        data: training set of the images; None for a part that was made without one.
    """

    clean: Tensor
    labels: Tensor
    index: Tensor
    positions: Tensor
    total: int
    epoch: int
    progress: float
    row_generator: RowGenerator
    augmentation: Augmentation | None = None
    repetition: int = 0
    data: Images | None = None

    @property
    def training_set(self) -> Images:
        """The training set of the images."""
        assert self.data is not None  # noqa: S101
        return self.data


def pass_seed(seed: int, stream: int, step: int, repetition: int) -> int:
    """Return the seed of a stream in one pass of a step; the first pass has that of a step with a single one."""
    return mix(seed, stream, step) if repetition == 0 else mix(seed, stream, step, repetition)


@dataclass(frozen=True)
class Batch:
    """One process's share of the batch of one step, before augmentation.

    Attributes:
        step: index of the step in the run, from 0.
        number: index of the batch in the run, from 0; all replays of a batch have the same.
        epoch: index of the epoch, from 0.
        ends_epoch: whether this step is the last of its epoch.
        progress: finished share of the run before this step, in [0, 1].
        images: images, uint8 (n, C, H, W) from 0 to 255, or float (n, C, H, W) in [0, 1].
        labels: true classes, int64 (n,).
        index: indices of the images in the training set, int64 (n,), on the CPU.
        total: number of images of the whole batch.
        data: training set of the images.
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
    data: Images | None = None

    def parts(self, share: Share, seed: int, augmentation: str = "crop-flip", *, passes: int = 1) -> Iterator[Part]:
        """Augment this share and yield its parts; the random numbers do not depend on how the batch is divided.

        All replays of a batch use the same crops, so that a perturbation of one step fits the images of the next.

        Args:
            share: pieces of the batch that this process computes.
            seed: seed of the run.
            augmentation: `crop-flip`, or `none` for the images as they are.
            passes: number of times to yield all parts, with the same images and other random numbers.
        """
        device = self.images.device
        pieces = share.own_pieces(self.total)
        begin = pieces[0].start
        generator, drawn = seeded(mix(seed, TrainingStream.CROPS, self.number)), None
        images = self.images
        if augmentation != "none":
            drawn = draw_augmentation(generator, len(images), device=device, first=begin, total=self.total)
            images = drawn.apply(images)
        images = to_float(images)
        for repetition, piece in product(range(passes), pieces):
            local = slice(piece.start - begin, piece.stop - begin)
            yield Part(
                images[local].contiguous(memory_format=torch.channels_last),
                self.labels[local],
                self.index[local],
                torch.arange(piece.start, piece.stop, device=device),
                self.total,
                self.epoch,
                self.progress,
                RowGenerator(pass_seed(seed, TrainingStream.ROWS, self.step, repetition), piece.start, device),
                None if drawn is None else drawn.rows(local),
                repetition,
                self.data,
            )


@dataclass(frozen=True)
class Plan:
    """Assignment of images to the steps of a run, a function of the seed.

    Args:
        images: number of images in the training set.
        batch_size: images of one batch over all processes; a smaller training set is a single batch.
        epochs: passes over the training set.
        replays: steps on each batch.
        seed: seed of the order of the images.
    """

    images: int
    batch_size: int
    epochs: int
    replays: int
    seed: int

    @property
    def total_per_batch(self) -> int:
        """Number of images of a batch over all processes."""
        return min(self.batch_size, self.images)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch, without the incomplete batch at its end."""
        return self.images // self.total_per_batch * self.replays

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def batches(self, data: Images, share: Share, step: int) -> Iterator[Batch]:
        """Yield this process's share of every batch from step number `step` on."""
        total = self.total_per_batch
        pieces = share.own_pieces(total)
        rows = slice(pieces[0].start, pieces[-1].stop)
        for epoch in range(step // self.steps_per_epoch, self.epochs):
            first = max(step, epoch * self.steps_per_epoch)
            order = torch.randperm(self.images, generator=seeded(mix(self.seed, TrainingStream.ORDER, epoch)))
            indices = [batch[rows] for batch in order.split(total) if len(batch) == total]
            first_batch = (first - epoch * self.steps_per_epoch) // self.replays
            loaded = data.load(indices[first_batch:], seed=mix(self.seed, TrainingStream.CROPS, epoch))
            for number, (images, labels) in enumerate(loaded, start=first_batch):
                for replay in range(self.replays):
                    current = epoch * self.steps_per_epoch + number * self.replays + replay
                    if current < first:
                        continue
                    yield Batch(
                        current,
                        current // self.replays,
                        epoch,
                        current == (epoch + 1) * self.steps_per_epoch - 1,
                        current / self.steps,
                        images,
                        labels,
                        indices[number],
                        total,
                        data,
                    )
