"""Reading of a user's `DataLoader`: which images of its data set it stands for, and copies of streams."""

from collections.abc import Iterable, Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    default_convert,
)

from smoothed.data.arrays import ArraySource
from smoothed.data.dataset import EVALUATION_SEED, Collate, DatasetSource, Workers
from smoothed.data.global_generators import restoring_generators, seed_generators
from smoothed.data.indexed import ImageSource
from smoothed.data.items import Keys, keys_of, to_image, to_label
from smoothed.errors import ArgumentError

# Samplers that visit all images of the data set in some order, or draw from all of them.
WHOLE = (SequentialSampler, RandomSampler, WeightedRandomSampler, DistributedSampler)


def is_stream(data: object) -> bool:
    """Whether `data` gives images one after the other and not by their index."""
    if isinstance(data, DataLoader):
        return isinstance(data.dataset, IterableDataset) or not hasattr(type(data.dataset), "__getitem__")
    if isinstance(data, IterableDataset):
        return True
    by_index = hasattr(type(data), "__getitem__") and hasattr(type(data), "__len__")
    return isinstance(data, Iterable) and not by_index


def loader_source(loader: DataLoader[Any], keys: Keys | None) -> ImageSource:
    """Make a source of the data set of a loader.

    The images are those of the data set in its own order, whatever order the loader has; a subset sampler restricts
    them to its indices, sorted. The items go through the loader's `collate_fn` one by one unless it is the default, and
    are read by as many workers as the loader has.

    Args:
        loader: loader of a map-style data set.
        keys: keys of image and label in a batch of the loader.

    Raises:
        ArgumentError: the sampler is of an unknown kind, or the first items are invalid.
    """
    dataset, indices = loader.dataset, _subset_indices(loader)
    if indices is not None:
        dataset = Subset(dataset, indices)
    collate: Collate | None = loader.collate_fn
    if collate in (default_collate, default_convert):
        collate = None
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2 and collate is None and keys in (None, (0, 1)):
        return ArraySource(*dataset.tensors)
    workers = Workers(loader.num_workers, loader.worker_init_fn, loader.multiprocessing_context)
    return DatasetSource(dataset, keys, collate, workers)


def _subset_indices(loader: DataLoader[Any]) -> list[int] | None:
    """Sorted indices of the images of a loader with a subset sampler; None for all images."""
    sampler: Any = loader.sampler
    batches = loader.batch_sampler
    if batches is not None:
        if type(batches) is not BatchSampler:
            raise _unknown_sampler(batches)
        sampler = batches.sampler
    if type(sampler) in WHOLE:
        return None
    indices = sampler.indices if type(sampler) is SubsetRandomSampler else sampler
    if isinstance(indices, list | tuple | range | Tensor | np.ndarray):
        return sorted({int(index) for index in indices})
    raise _unknown_sampler(sampler)


def _unknown_sampler(sampler: object) -> ArgumentError:
    hint = "pass loader.dataset, or torch.utils.data.Subset(loader.dataset, indices)"
    expected = "a DataLoader that reads all images of its data set or has a SubsetRandomSampler"
    return ArgumentError("data", expected, f"one with a {type(sampler).__name__}", hint)


def copy_stream(data: Iterable[Any], count: int | None, keys: Keys | None) -> ImageSource:
    """Copy the first `count` images of a stream into memory.

    Args:
        data: iterable data set, loader of one, or another iterable of items (image, label) or of batches of them.
        count: number of images; None is refused.
        keys: keys of image and label in an item or a batch.

    Raises:
        ArgumentError: `count` is None or exceeds the number of images, or an image or a label is invalid.
    """
    if count is None:
        length = f" of length {len(data)}" if isinstance(data, Sized) and _has_length(data) else ""
        hint = "state the number of images to copy into memory: count=..."
        raise ArgumentError("data", "images that can be read by index", f"a stream ({_kind(data)}{length})", hint)
    images: Tensor | None = None
    labels = torch.empty(count, dtype=torch.int64)
    row = 0
    generator = getattr(data, "generator", None)
    before = generator.get_state() if isinstance(generator, torch.Generator) else None
    with restoring_generators():
        seed_generators(EVALUATION_SEED)
        for row, (image, label) in zip(range(count), _items(data, keys), strict=False):
            where = f"image {row}"
            pixels = to_image(image, where)
            if images is None:
                images = torch.empty(count, *pixels.shape, dtype=pixels.dtype)
            if pixels.shape != images.shape[1:] or pixels.dtype != images.dtype:
                expected = f"images of one shape and type, {tuple(images.shape[1:])} {images.dtype} as in image 0"
                raise ArgumentError("data", expected, f"{tuple(pixels.shape)} {pixels.dtype} in {where}")
            images[row], labels[row] = pixels, to_label(label, where)
    if isinstance(generator, torch.Generator) and before is not None:
        generator.set_state(before)
    found = 0 if images is None else row + 1
    if images is None or found < count:
        raise ArgumentError("count", f"at most {found}, the number of images in the data", count)
    return ArraySource(images, labels)


def _items(data: Iterable[Any], keys: Keys | None) -> Iterator[tuple[Any, Any]]:
    """Images and labels of a stream, one by one; elements whose labels have an axis are batches."""
    for number, element in enumerate(data):
        image_key, label_key = keys_of(element, keys, f"element {number}")
        images, labels = element[image_key], element[label_key]
        if isinstance(labels, list | tuple) or getattr(labels, "ndim", 0) > 0:
            if len(images) != len(labels):
                got = f"{len(images)} images and {len(labels)} labels in element {number}"
                raise ArgumentError("data", "one label per image", got)
            yield from zip(images, labels, strict=True)
        else:
            yield images, labels


def _has_length(data: Sized) -> bool:
    try:
        return len(data) >= 0
    except TypeError:  # loaders of data sets without a length have the method
        return False


def _kind(data: object) -> str:
    if isinstance(data, DataLoader):
        return f"DataLoader of {type(data.dataset).__name__}"
    return type(data).__name__
