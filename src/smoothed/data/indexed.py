"""Image set over a source of images that is read by index, one batch at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from smoothed.data.images import first_images
from smoothed.data.imageset import to_float


class ImageSource(Protocol):
    """N labelled images of one shape, read by their index."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, or their numbers `0`, `1`, ... up to the largest label."""
        ...

    @property
    def named_classes(self) -> bool:
        """Whether the names of the classes are known."""
        ...

    def __len__(self) -> int:
        """Number N of images."""
        ...

    def labels_at(self, indices: Tensor) -> Tensor:
        """Return the labels of the images at `indices`, int64 (n,), on the CPU."""
        ...

    def read(self, batches: Sequence[Tensor], seed: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, uint8 or float32 (n, C, H, W), and labels, int64 (n,), of each batch of indices.

        The tensors are new. Random augmentation of an image is a function of (seed, index).
        """
        ...


@dataclass(frozen=True, eq=False)
class IndexedImages:
    """Images of a source in a given order; it implements `Images`. No image is read before its batch is.

    Attributes:
        name: name of the set in tables.
        source: source of the images.
        indices: indices of the images in the source, int64 (N,), on the CPU; None for all images in order.
        device: device of the batches.
    """

    name: str
    source: ImageSource = field(repr=False)
    indices: Tensor | None = field(default=None, repr=False)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, or `0`, `1`, ... up to the largest label of the source, where names are unknown."""
        return self.source.classes

    @property
    def named_classes(self) -> bool:
        """Whether the names of the classes are known."""
        return self.source.named_classes

    @property
    def labels(self) -> Tensor:
        """Class of each image, int64 (N,), on the CPU."""
        return self.source.labels_at(self._at(slice(None)))

    def __len__(self) -> int:
        return len(self.source) if self.indices is None else len(self.indices)

    def subset(self, index: Tensor | slice, name: str | None = None) -> Self:
        """Return the set of the images at `index`, in that order."""
        return replace(self, name=name or self.name, indices=self._at(index))

    def first(self, count: int | None) -> Self:
        """Return the set of the first `count` images, or of all images if `count` is None.

        Raises:
            DataError: `count` is less than 1 or exceeds the number of images.
        """
        return first_images(self, count)

    def to(self, device: torch.device | str) -> Self:
        """Return the set with its batches on `device`; images move there one batch at a time."""
        return replace(self, device=torch.device(device))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield float images in [0, 1], (n, C, H, W), and labels, (n,), in order; n is at most `size`. See `load`."""
        for images, labels in self.load(torch.arange(len(self)).split(size)):
            yield to_float(images), labels

    def load(self, batches: Sequence[Tensor], seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each batch.

        Args:
            batches: indices of the images of each batch in 0 .. N - 1, int64 (n,).
            seed: seed of the augmentation inside a data set, which is a function of (seed, index of the image in its
                source); None for the augmentation of evaluations, which is always the same.

        Yields:
            Images, uint8 (n, C, H, W) from 0 to 255 or float32 in [0, 1], and their labels, int64 (n,), on the device.

        Raises:
            ArgumentError: an image or a label is invalid, or the shapes of images differ.
        """
        for images, labels in self.source.read([self._at(batch) for batch in batches], seed):
            yield images.to(self.device), labels.to(self.device)

    def _at(self, index: Tensor | slice) -> Tensor:
        """Indices in the source."""
        indices = torch.arange(len(self.source)) if self.indices is None else self.indices
        return indices[index if isinstance(index, slice) else index.cpu()]
