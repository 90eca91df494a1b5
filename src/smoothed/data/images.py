"""Interface of all image sets, in memory or read from disk on demand."""

from collections.abc import Iterator, Sequence
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from smoothed.errors import DataError


class Images(Protocol):
    """N labelled images of one size in a fixed order, with batches on one device."""

    @property
    def name(self) -> str:
        """Name of the set in tables, such as `cifar10 test`."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""
        ...

    @property
    def labels(self) -> Tensor:
        """Class of each image in 0 .. K - 1, int64 (N,), on the device of the batches or on the CPU."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        ...

    def __len__(self) -> int:
        """Number N of images."""
        ...

    def subset(self, index: Tensor | slice, name: str | None = None) -> Self:
        """Return the set of the images at `index`, in that order."""
        ...

    def first(self, count: int | None) -> Self:
        """Return the set of the first `count` images, or of all images if `count` is None.

        Raises:
            DataError: `count` is less than 1 or exceeds the number of images.
        """
        ...

    def to(self, device: torch.device | str) -> Self:
        """Return the set with its batches on `device`."""
        ...

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield float images in [0, 1], (n, C, H, W), and labels, (n,), in order; n is at most `size`."""
        ...

    def load(self, batches: Sequence[Tensor], seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each batch.

        Args:
            batches: indices of the images of each batch in 0 .. N - 1, int64 (n,).
            seed: seed of random crops, for sets whose files are larger than their images, and of augmentation inside a
                data set of the user; None for the centre, and for one augmentation that is always the same.

        Yields:
            Images, uint8 (n, C, H, W) from 0 to 255 or float in [0, 1], and their labels, int64 (n,).
        """
        ...


AnyImages = TypeVar("AnyImages", bound=Images)
"""Some type that implements `Images`."""


def has_named_classes(images: Images) -> bool:
    """Whether the names of the classes are known; if not, `images.classes` are numbers up to the largest label."""
    return getattr(images, "named_classes", True)


def first_images(images: AnyImages, count: int | None) -> AnyImages:
    """See `Images.first`."""
    if count is not None and not 0 < count <= len(images):
        raise DataError(f"images: expected 1 to {len(images)} (the size of {images.name}), got {count}")
    return images if count is None else images.subset(slice(count))


def check_labels_fit(name: str, count: int, labels: Tensor, num_classes: int) -> None:
    """Raise `DataError` unless the set `name` has `count` labels in 0 .. num_classes - 1, one per image."""
    if count != len(labels):
        raise DataError(f"{name}: expected one label per image, got {count} images and {len(labels)} labels")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        invalid = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise DataError(f"{name}: expected labels in 0..{num_classes - 1}, got {invalid}; the file is damaged")
