"""Set of image files of any size, which worker processes decode on demand."""

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smoothed.data.decode import read_image
from smoothed.data.images import check_labels_fit, first_images
from smoothed.data.imageset import to_float
from smoothed.errors import ArgumentError, DataError
from smoothed.rng.seeds import mix

IMAGE_SIZE = 224
MAX_IMAGE_SIZE = 4096
MAX_WORKERS = 4


def default_workers() -> int:
    """Return the number of CPUs that this process may use, at most four."""
    # `cpu_count` counts all CPUs of the machine, of which this process may use only some.
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, cpus)


@dataclass(frozen=True)
class FolderSet:
    """Image files with labels; it implements `Images`.

    Attributes:
        name: name of the set in tables, such as `flowers test`.
        files: paths of the N images.
        labels: classes in 0 .. K - 1, int64 (N,), on the CPU.
        classes: names of the K classes.
        image_size: height and width of the decoded images, in pixels, 1 to 4096.
        workers: number of processes that decode files in advance; 0 decodes them in this process on demand.
        device: device of the batches.

    Raises:
        DataError: `labels` do not fit `files` and `classes`.
        ArgumentError: `image_size` or `workers` is out of range.
    """

    name: str
    files: tuple[str, ...] = field(repr=False)
    labels: Tensor = field(repr=False)
    classes: tuple[str, ...]
    image_size: int = IMAGE_SIZE
    workers: int = field(default_factory=default_workers)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    named_classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_labels_fit(self.name, len(self.files), self.labels, len(self.classes))
        if not _is_whole(self.image_size) or not 1 <= self.image_size <= MAX_IMAGE_SIZE:
            raise ArgumentError("image_size", f"an integer in 1..{MAX_IMAGE_SIZE} (pixels)", self.image_size)
        if not _is_whole(self.workers) or self.workers < 0:
            raise ArgumentError("workers", "an integer of at least 0", self.workers)

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, index: Tensor | slice, name: str | None = None) -> Self:
        """Return the set of the images at `index`, in that order."""
        indices = torch.arange(len(self))[index if isinstance(index, slice) else index.cpu()]
        files = tuple(self.files[number] for number in indices.tolist())
        return replace(self, name=name or self.name, files=files, labels=self.labels[indices])

    def first(self, count: int | None) -> Self:
        """Return the set of the first `count` images, or of all images if `count` is None.

        Raises:
            DataError: `count` is less than 1 or exceeds the number of images.
        """
        return first_images(self, count)

    def to(self, device: torch.device | str) -> Self:
        """Return the set with its batches on `device`."""
        return replace(self, device=torch.device(device))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield float images in [0, 1], (n, 3, H, W), and labels, (n,), in order; n is at most `size`. See `load`."""
        for images, labels in self.load(torch.arange(len(self)).split(size)):
            yield to_float(images), labels

    def load(self, batches: Sequence[Tensor], seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each batch, decoded in advance by worker processes, which end with the iterator.

        Args:
            batches: indices of the images of each batch in 0 .. N - 1, int64 (n,).
            seed: seed of a random crop of each image, which is a function of (seed, index); None for the largest
                central square.

        Yields:
            Images, uint8 (n, 3, image_size, image_size), and their labels, int64 (n,), on the device.

        Raises:
            DataError: a file is missing, damaged, or not an image.
        """
        on_cuda = self.device.type == "cuda"
        loader = DataLoader(
            _Reader(self.image_size, seed),
            sampler=self._indices_and_files(batches),
            batch_size=None,
            num_workers=min(self.workers, len(batches)),
            worker_init_fn=ignore_interrupts,
            pin_memory=on_cuda,
            generator=torch.Generator(),  # else the loader would draw from torch's default generator
        )
        for batch, images in zip(batches, loader, strict=True):
            if isinstance(images, DataError):
                raise images
            yield images.to(self.device, non_blocking=on_cuda), self.labels[batch.cpu()].to(self.device)

    def _indices_and_files(self, batches: Sequence[Tensor]) -> Iterator[list[tuple[int, str]]]:
        """Yield index and path of each image of a batch, so that workers need no copy of all paths."""
        for batch in batches:
            yield [(number, self.files[number]) for number in batch.tolist()]


@dataclass(frozen=True)
class _Reader(Dataset[Tensor | DataError]):
    """Decoder of a batch in a worker, which returns the pixels or the error of a file.

    The error is returned because raising it would add the worker's traceback to its message.
    """

    image_size: int
    seed: int | None

    def __getitem__(self, index: list[tuple[int, str]]) -> Tensor | DataError:
        images = torch.empty(len(index), 3, self.image_size, self.image_size, dtype=torch.uint8)
        try:
            for image, (number, path) in zip(images, index, strict=True):
                image.copy_(read_image(path, self.image_size, None if self.seed is None else mix(self.seed, number)))
        except DataError as error:
            return error
        return images


def ignore_interrupts(worker: int) -> None:
    """Ignore Ctrl-C in a worker; the main process handles it and ends the workers."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
