"""Images and labels in tensors or NumPy arrays of the user, which are never written to and never copied whole."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from smoothed.data.items import check_pixel_type, describe_value, from_numpy, in_range, is_channels_last
from smoothed.errors import ArgumentError

# Number of images whose range is checked when the set is made; the others are checked when they are read.
CHECKED_IMAGES = 100


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images and labels in arrays; it implements `ImageSource`.

    Attributes:
        images: tensor or NumPy array (N, C, H, W), or (N, H, W) for one channel; uint8 from 0 to 255, or float16,
            bfloat16, float32 or float64 in [0, 1].
        labels: classes, a tensor, NumPy array or sequence of integers, (N,).

    Raises:
        ArgumentError: type, shape or range of an array is invalid, or there are no images.
    """

    images: Tensor | np.ndarray
    labels: object
    named_classes: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.images, Tensor | np.ndarray):
            got = f"{describe_value(self.images)} as images"
            hint = "stack them to one array (N, C, H, W), or pass a list of pairs (image, label)"
            raise ArgumentError("data", "images in one tensor or NumPy array", got, hint)
        check_pixel_type(self.images, "the array")
        _check_shape(self.images)
        object.__setattr__(self, "labels", labels_tensor(self.labels, len(self.images)))
        for _ in self.read([torch.arange(min(CHECKED_IMAGES, len(self)))], None):
            pass

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        """The numbers `0`, `1`, ... up to the largest label."""
        return tuple(map(str, range(int(self._labels.max()) + 1)))

    @property
    def _labels(self) -> Tensor:
        assert isinstance(self.labels, Tensor)  # noqa: S101 - `__post_init__` converts them
        return self.labels

    def labels_at(self, indices: Tensor) -> Tensor:
        """See `ImageSource.labels_at`."""
        return self._labels[indices]

    def read(self, batches: Sequence[Tensor], seed: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """See `ImageSource.read`; `seed` has no effect."""
        del seed
        for indices in batches:
            if isinstance(self.images, Tensor):
                images = self.images.detach()[indices.to(self.images.device)].as_subclass(Tensor)
            else:
                images = from_numpy(self.images[indices.numpy()])
            if images.ndim == 3:
                images = images.unsqueeze(1)
            if images.is_floating_point():
                images = in_range(images, [f"image {index}" for index in indices.tolist()])
            yield images, self._labels[indices]


def _check_shape(images: Tensor | np.ndarray) -> None:
    shape = tuple(images.shape)
    if images.ndim not in (3, 4):
        hint = "add the axis of images: images[None]" if images.ndim == 2 else ""
        raise ArgumentError("data", "images of shape (N, C, H, W) or (N, H, W)", f"shape {shape}", hint)
    if 0 in shape:
        raise ArgumentError("data", "at least one image", f"shape {shape}")
    if images.ndim == 4 and is_channels_last(shape):
        call = "permute" if isinstance(images, Tensor) else "transpose"
        hint = f"pass images.{call}(0, 3, 1, 2), which copies nothing"
        raise ArgumentError("data", "images of shape (N, C, H, W)", f"shape {shape}", hint)


def labels_tensor(labels: object, count: int) -> Tensor:
    """Convert labels to int64 (N,) on the CPU, without a copy where they are that already.

    Args:
        labels: tensor, NumPy array or sequence of integers.
        count: number N of images.

    Raises:
        ArgumentError: labels are not integers, not one per image, or negative.
    """
    if not isinstance(labels, Tensor):
        try:
            array = np.asarray(labels)
        except ValueError:  # sequences of different lengths
            array = np.empty(0, dtype=object)
        if array.dtype.kind not in "iu":
            got = (
                f"labels of type {array.dtype}"
                if isinstance(labels, np.ndarray)
                else f"{describe_value(labels)} as labels"
            )
            raise ArgumentError("data", "labels that are integers", got, _labels_hint(array))
        labels = from_numpy(array.astype(np.int64))
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ArgumentError("data", "labels that are integers", f"labels of type {labels.dtype}", _labels_hint(labels))
    if labels.shape != (count,):
        got = f"labels of shape {tuple(labels.shape)}"
        raise ArgumentError("data", f"one label per image, shape ({count},)", got, _labels_hint(labels))
    labels = labels.detach().as_subclass(Tensor).to("cpu", torch.int64)
    if len(labels) and int(labels.min()) < 0:
        where = int(labels.lt(0).nonzero()[0])
        hint = "a negative label often means that the label is unknown, as in unlabelled test sets"
        raise ArgumentError("data", "labels of at least 0", f"{int(labels[where])} for image {where}", hint)
    return labels


def _labels_hint(labels: Tensor | np.ndarray) -> str:
    if labels.ndim == 2:
        return "pass labels[:, 0]" if labels.shape[1] == 1 else "convert one-hot labels with labels.argmax(1)"
    return "" if labels.ndim != 1 else "convert them to int64, one class index per image"
