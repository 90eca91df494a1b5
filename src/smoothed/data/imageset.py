"""Set of labelled images in memory, converted to floats in [0, 1] one batch at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from smoothed.data.images import check_labels_fit, first_images
from smoothed.errors import DataError


@dataclass(frozen=True)
class ImageSet:
    """Images and labels in memory; it implements `Images`.

    Attributes:
        name: name of the set in tables, such as `cifar10 test`.
        images: images (N, C, H, W), uint8 from 0 to 255 or float in [0, 1]; the range of floats is not checked.
        labels: classes in 0 .. K - 1, int64 (N,).
        classes: names of the K classes.
        named_classes: whether these names are known ones and not only numbers.

    Raises:
        DataError: `labels` do not fit `images` and `classes`, or `images` are neither uint8 nor float.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    named_classes: bool = True

    def __post_init__(self) -> None:
        check_labels_fit(self.name, len(self.images), self.labels, len(self.classes))
        if self.images.dtype != torch.uint8 and not self.images.is_floating_point():
            raise DataError(f"{self.name}: expected images of type uint8 or float, got {self.images.dtype}")

    @property
    def device(self) -> torch.device:
        """Device of the images and the labels."""
        return self.images.device

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index: Tensor | slice, name: str | None = None) -> Self:
        """Return the set of the images at `index`, in that order."""
        return replace(self, name=name or self.name, images=self.images[index], labels=self.labels[index])

    def first(self, count: int | None) -> Self:
        """Return the set of the first `count` images, or of all images if `count` is None.

        Raises:
            DataError: `count` is less than 1 or exceeds the number of images.
        """
        return first_images(self, count)

    def to(self, device: torch.device | str) -> Self:
        """Return the set with its tensors on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield float images in [0, 1], (n, C, H, W), and labels, (n,), in order; n is at most `size`."""
        for images, labels in zip(self.images.split(size), self.labels.split(size), strict=True):
            yield to_float(images), labels

    def load(self, batches: Sequence[Tensor], seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images, as they are stored, and the labels of each batch; `seed` has no effect."""
        del seed
        for batch in batches:
            index = batch.to(self.images.device)
            yield self.images[index], self.labels[index]


def to_float(images: Tensor) -> Tensor:
    """Convert images to float32 in [0, 1].

    Args:
        images: uint8 images from 0 to 255, or float images in [0, 1].

    Returns:
        Pixels of uint8 images divided by 255, in a new tensor; float images are not scaled, and float32 images are
        returned as they are.
    """
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()
