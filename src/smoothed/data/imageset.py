"""A labelled set of images in memory: uint8 on a device, floats in [0, 1] only batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from smoothed.data.images import check_labels_fit, first_images


@dataclass(frozen=True)
class ImageSet:
    """Images and labels. It offers what `Images` says.

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
        check_labels_fit(self.name, len(self.images), self.labels, len(self.classes))

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
        return first_images(self, count)

    def to(self, device: torch.device | str) -> Self:
        """The set with its tensors on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Float images in [0, 1] and labels, in order, at most `size` at a time."""
        for images, labels in zip(self.images.split(size), self.labels.split(size), strict=True):
            yield to_float(images), labels

    def load(self, batches: Sequence[Tensor], seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The uint8 images at each of `batches`, and their labels; `seed` changes nothing, there is nothing to crop."""
        del seed
        for batch in batches:
            index = batch.to(self.images.device)
            yield self.images[index], self.labels[index]


def to_float(images: Tensor) -> Tensor:
    """Map uint8 images in 0..255 to floats in [0, 1]."""
    return images.float().div_(255)
