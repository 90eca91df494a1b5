"""A labelled set of images in memory: uint8 on a device, floats in [0, 1] only batch by batch."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from smoothed.errors import DataError


@dataclass(frozen=True)
class ImageSet:
    """Images and labels.

    Attributes:
        name: what to call the set in tables, such as `cifar10 test`.
        images: uint8, (N, C, H, W).
        labels: int64, (N,), in 0 .. K - 1.
        classes: the K class names.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise DataError(f"{self.name}: expected a label an image, got {len(self.images)} and {len(self.labels)}")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            wrong = int(self.labels.min()) if int(self.labels.min()) < 0 else int(self.labels.max())
            raise DataError(
                f"{self.name}: expected labels in 0..{len(self.classes) - 1}, got {wrong}; the file is damaged"
            )

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index: Tensor | slice, name: str | None = None) -> Self:
        """The images at `index`, in its order."""
        return replace(self, name=name or self.name, images=self.images[index], labels=self.labels[index])

    def first(self, count: int | None) -> Self:
        """The first `count` images, or all of them when None.

        Raises:
            DataError: fewer images than asked for.
        """
        if count is not None and not 0 < count <= len(self):
            raise DataError(f"images: expected 1 to {len(self)} (the size of {self.name}), got {count}")
        return self if count is None else self.subset(slice(count))

    def to(self, device: torch.device | str) -> Self:
        """The set with its tensors on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Float images in [0, 1] and labels, in order, at most `size` at a time."""
        for images, labels in zip(self.images.split(size), self.labels.split(size), strict=True):
            yield to_float(images), labels


def to_float(images: Tensor) -> Tensor:
    """Map uint8 images in 0..255 to floats in [0, 1]."""
    return images.float().div_(255)
