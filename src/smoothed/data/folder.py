"""A set of image files of any size, decoded by worker processes as it is used and never held in memory."""

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

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
    """As many workers as this process may use CPUs, four at most."""
    # Where the CPUs are shared out, `cpu_count` tells those of the whole machine.
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, cpus)


@dataclass(frozen=True)
class FolderSet:
    """Image files and labels. It offers what `Images` says.

    Attributes:
        name: what to call the set in tables, such as `flowers test`.
        files: the path of each image.
        labels: int64, (N,), in 0 .. K - 1, on the CPU.
        classes: the K class names.
        image_size: height and width of the images that come out.
        workers: processes that decode files ahead of their use; with 0, this one does it when they are asked for.
        device: what batches come out on.
    """

    name: str
    files: tuple[str, ...] = field(repr=False)
    labels: Tensor = field(repr=False)
    classes: tuple[str, ...]
    image_size: int = IMAGE_SIZE
    workers: int = field(default_factory=default_workers)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        check_labels_fit(self.name, len(self.files), self.labels, len(self.classes))
        if not _is_whole(self.image_size) or not 1 <= self.image_size <= MAX_IMAGE_SIZE:
            raise ArgumentError("image_size", f"a whole number of pixels in 1..{MAX_IMAGE_SIZE}", self.image_size)
        if not _is_whole(self.workers) or self.workers < 0:
            raise ArgumentError("workers", "a whole number of at least 0", self.workers)

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, index: Tensor | slice, name: str | None = None) -> Self:
        """The images at `index`, in its order."""
        places = torch.arange(len(self))[index if isinstance(index, slice) else index.cpu()]
        files = tuple(self.files[place] for place in places.tolist())
        return replace(self, name=name or self.name, files=files, labels=self.labels[places])

    def first(self, count: int | None) -> Self:
        """The first `count` images, or all of them when None.

        Raises:
            DataError: fewer images than asked for.
        """
        return first_images(self, count)

    def to(self, device: torch.device | str) -> Self:
        """The set with its batches on `device`."""
        return replace(self, device=torch.device(device))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Float images in [0, 1] and labels, in order, at most `size` at a time; errors as in `load`."""
        for images, labels in self.load(torch.arange(len(self)).split(size)):
            yield to_float(images), labels

    def load(self, batches: Sequence[Tensor], seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of each batch in turn, decoded ahead by the workers, which end with the iterator.

        Args:
            batches: the places of each batch's images, int64, (n,), in 0 .. N - 1.
            seed: of a random part of each image, which is a function of (seed, place) alone; with None, the shorter
                side becomes `image_size` and the centre is kept.

        Yields:
            uint8 images, (n, 3, image_size, image_size), and their labels, (n,), on the device.

        Raises:
            DataError: a file is missing, damaged or no image.
        """
        on_cuda = self.device.type == "cuda"
        loader = DataLoader(
            _Reader(self.image_size, seed),
            sampler=self._lots(batches),
            batch_size=None,
            num_workers=min(self.workers, len(batches)),
            worker_init_fn=_ignore_interrupts,
            pin_memory=on_cuda,
            generator=torch.Generator(),  # else a seed for the workers is drawn from torch's own
        )
        for batch, images in zip(batches, loader, strict=True):
            if isinstance(images, DataError):
                raise images
            yield images.to(self.device, non_blocking=on_cuda), self.labels[batch.cpu()].to(self.device)

    def _lots(self, batches: Sequence[Tensor]) -> Iterator[list[tuple[int, str]]]:
        """The place and path of each image of a batch, so that workers need no copy of all of them."""
        for batch in batches:
            yield [(place, self.files[place]) for place in batch.tolist()]


@dataclass(frozen=True)
class _Reader(Dataset[Tensor | DataError]):
    """What a worker does: the pixels of a batch, or the error that says which file it failed at.

    Raised in the worker, the error would come out with the worker's traceback in its message.
    """

    image_size: int
    seed: int | None

    def __getitem__(self, index: list[tuple[int, str]]) -> Tensor | DataError:
        images = torch.empty(len(index), 3, self.image_size, self.image_size, dtype=torch.uint8)
        try:
            for image, (place, path) in zip(images, index, strict=True):
                image.copy_(read_image(path, self.image_size, None if self.seed is None else mix(self.seed, place)))
        except DataError as error:
            return error
        return images


def _ignore_interrupts(worker: int) -> None:
    """Leave Ctrl-C to the main process, which may have a step to finish; it ends the workers."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
