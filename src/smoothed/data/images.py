"""What every set of images offers, whether it lies in memory or is read from disk as it is used."""

from collections.abc import Iterator, Sequence
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from smoothed.errors import DataError


class Images(Protocol):
    """Labelled images of one size, in a fixed order, whose batches come out on a device."""

    @property
    def name(self) -> str:
        """What to call the set in tables, such as `cifar10 test`."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The K class names."""
        ...

    @property
    def labels(self) -> Tensor:
        """The label of each image: int64, (N,), in 0 .. K - 1."""
        ...

    def __len__(self) -> int:
        """The number of images, N."""
        ...

    def subset(self, index: Tensor | slice, name: str | None = None) -> Self:
        """The images at `index`, in its order."""
        ...

    def first(self, count: int | None) -> Self:
        """The first `count` images, or all of them when None.

        Raises:
            DataError: fewer images than asked for.
        """
        ...

    def to(self, device: torch.device | str) -> Self:
        """The set with its batches on `device`."""
        ...

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Float images in [0, 1], (n, C, H, W), and labels, (n,), in order, at most `size` at a time."""
        ...

    def load(self, batches: Sequence[Tensor], seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of each batch in turn.

        Args:
            batches: the places of each batch's images, int64, (n,), in 0 .. N - 1.
            seed: of random crops, for sets whose files are larger than their images; None takes the centre.

        Yields:
            uint8 images in 0..255, (n, C, H, W), and their labels, (n,).
        """
        ...


AnyImages = TypeVar("AnyImages", bound=Images)


def first_images(images: AnyImages, count: int | None) -> AnyImages:
    """See `Images.first`."""
    if count is not None and not 0 < count <= len(images):
        raise DataError(f"images: expected 1 to {len(images)} (the size of {images.name}), got {count}")
    return images if count is None else images.subset(slice(count))


def check_labels_fit(name: str, count: int, labels: Tensor, num_classes: int) -> None:
    """Raise `DataError` unless the `count` images of the set `name` have a label each, in 0 .. num_classes - 1."""
    if count != len(labels):
        raise DataError(f"{name}: expected a label an image, got {count} and {len(labels)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise DataError(f"{name}: expected labels in 0..{num_classes - 1}, got {wrong}; the file is damaged")
