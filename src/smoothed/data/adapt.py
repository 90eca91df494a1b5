"""Image sets from whatever a user has: names, folders, arrays, data sets and loaders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from smoothed.data.arrays import ArraySource
from smoothed.data.dataset import DatasetSource
from smoothed.data.images import Images, has_named_classes
from smoothed.data.indexed import ImageSource, IndexedImages
from smoothed.data.items import Keys, describe_value
from smoothed.data.loader import copy_stream, is_stream, loader_source
from smoothed.data.named import load_images, load_training
from smoothed.data.split import default_validation_count, split_validation
from smoothed.errors import ArgumentError, DataError
from smoothed.utils.checks import check_positive

EXPECTED = (
    "a name, a folder, a DataLoader, a Dataset, a pair (images, labels) of tensors or NumPy arrays, or a list of pairs "
    "(image, label)"
)


def as_images(
    data: Any,  # noqa: ANN401 - data of any library
    split: str = "test",
    *,
    keys: Keys | None = None,
    name: str | None = None,
    count: int | None = None,
) -> Images:
    """Make an image set of a name, a folder, arrays, a data set or a loader.

    The user's data are never modified. Batches are read and converted one at a time; only the first `count` images of a
    stream are copied into memory. Invalid images raise `ArgumentError` when they are read.

    Args:
        data: one of

            - a name or a folder, as in `load_images`;
            - an object that implements `Images`, which is returned;
            - a pair (images, labels) of tensors or NumPy arrays: images (N, C, H, W), or (N, H, W) for one channel, as
              uint8 from 0 to 255 or as float16, bfloat16, float32 or float64 in [0, 1]; integer labels (N,);
            - a map-style `torch.utils.data.Dataset`, a data set of Hugging Face's `datasets`, or a list, whose items
              are pairs (image, label) or mappings. Images are tensors (C, H, W), NumPy arrays (H, W, C) or (H, W), or
              PIL images (mode L has one channel, other modes become RGB), all of one shape; labels are integers.
              Random augmentation that draws from the global generators of torch, NumPy or Python is the same each time
              an image is read;
            - a `DataLoader`. The images are those of its data set in the order of the data set, each once; a
              `SubsetRandomSampler` or a list of indices as sampler restricts them to its indices, sorted. The number of
              workers is the loader's. Items go through its `collate_fn` one by one unless it is the default;
            - a stream (an `IterableDataset`, a loader of one, or a generator of items or of batches) together with
              `count`.
        split: `test`, `validation` or `train`, of a name or a folder; other data are taken as they are.
        keys: keys of image and label in items that are mappings, or their positions in items that are tuples. None for
            `image` and `label`, `img` and `label`, or `pixel_values` and `labels`, and for pairs.
        name: name of the set in tables; None for the name of the data set, or its type.
        count: number of images, the first of `data`; None for all. Of a stream, they are copied into memory.

    Returns:
        Image set on the CPU (a tensor's batches too). Its `named_classes` says whether names of classes are known;
        if not, `classes` are the numbers `0`, `1`, ... up to the largest label.

    Raises:
        ArgumentError: the data have another type, shape or range, or `count` exceeds the number of images.
        DataError: a named data set does not exist, or a file is damaged.
    """
    if count is not None:
        check_positive(count, "count")
    if isinstance(data, str | Path):
        images = load_images(str(data), split)
    elif _is_images(data):
        images = data
    else:
        images = IndexedImages(name or _default_name(data), _source(data, keys, count))
    if name is not None and images.name != name:
        images = images.subset(slice(None), name)
    if count is not None and count > len(images):
        raise ArgumentError("count", f"at most {len(images)}, the number of images in the data", count)
    return images.first(count)


def as_training(
    data: Any,  # noqa: ANN401 - data of any library
    *,
    keys: Keys | None = None,
    validation: Any = None,  # noqa: ANN401
    name: str | None = None,
) -> tuple[str, Images, Images]:
    """Make a training and a validation set.

    Augmentation inside `data` also applies to the validation images that are held out of them, the same in each epoch;
    pass `validation` to validate on other images.

    Args:
        data: training data, as in `as_images`. A name or a folder gives its training split.
        keys: as in `as_images`, for both sets.
        validation: validation data, as in `as_images`; a name or a folder gives its validation split. None for the
            validation split of a name or a folder, and for min(5000, a tenth) of other training data, chosen at random
            and stratified by class.
        name: name of data without a name; None as in `as_images`.

    Returns:
        Name of the data (`cifar10`, `cifar100`, `imagefolder:PATH`, otherwise the name of the training set), training
        set and validation set.

    Raises:
        ArgumentError: data have another type, shape or range, or the two sets differ in classes or shape.
        DataError: a named data set does not exist or has no training images, or a file is damaged.
    """
    if isinstance(data, str | Path):
        found, train, held_out = load_training(str(data))
        if validation is None:
            return found, train, held_out
    else:
        train = as_images(data, "train", keys=keys, name=name)
        found = train.name
        if validation is None:
            if len(train) < 2:
                raise ArgumentError("data", "at least two images, one of them for validation", len(train))
            return found, *split_validation(train, default_validation_count(len(train)))
    try:
        held_out = as_images(validation, "validation", keys=keys)
    except ArgumentError as error:
        raise (error.named("validation") if error.argument == "data" else error) from None
    except DataError as error:
        if not str(error).startswith("data: "):
            raise
        raise DataError(str(error).replace("data", "validation", 1)) from None
    _require_same_kind(train, held_out)
    return found, train, held_out


def _source(data: Any, keys: Keys | None, count: int | None) -> ImageSource:  # noqa: ANN401
    if _is_pair(data):
        return ArraySource(*data)
    if isinstance(data, Mapping):
        hint = f"pass one of them, such as data[{next(iter(data))!r}]" if data else ""
        raise ArgumentError("data", EXPECTED, f"a {type(data).__name__} with {', '.join(map(repr, data))}", hint)
    if isinstance(data, Tensor | np.ndarray):
        raise ArgumentError("data", EXPECTED, describe_value(data), "pass labels too: (images, labels)")
    if is_stream(data):
        return copy_stream(data, count, keys)
    if isinstance(data, DataLoader):
        return loader_source(data, keys)
    if type(data) is TensorDataset and len(data.tensors) == 2 and keys in (None, (0, 1)):
        return ArraySource(*data.tensors)
    if hasattr(type(data), "__getitem__") and not isinstance(data, type | bytes):
        return DatasetSource(data, keys)
    raise ArgumentError("data", EXPECTED, describe_value(data))


def _is_pair(data: object) -> bool:
    """Whether `data` is (images, labels) rather than a list of two items (image, label)."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        return False
    return isinstance(data, tuple) or isinstance(data[0], Tensor | np.ndarray)


def _is_images(data: object) -> bool:
    methods = ("subset", "first", "to", "batches", "load")
    return not isinstance(data, type) and all(callable(getattr(type(data), method, None)) for method in methods)


def _default_name(data: Any) -> str:  # noqa: ANN401
    """Name of a data set in tables: a stated one, or the type of the innermost data set."""
    if _is_pair(data):
        return "arrays"
    if isinstance(data, list | tuple):
        return "images"
    while not isinstance(data, list | tuple) and hasattr(data, "dataset") and not _stated_name(data):
        data = data.dataset
    return _stated_name(data) or type(data).__name__


def _stated_name(data: Any) -> str | None:  # noqa: ANN401
    """Name and split of a Hugging Face data set."""
    name = getattr(getattr(data, "info", None), "dataset_name", None)
    split = getattr(data, "split", None)
    return f"{name} {split}" if isinstance(name, str) and split is not None else name if isinstance(name, str) else None


def _require_same_kind(train: Images, validation: Images) -> None:
    """Raise `ArgumentError` unless the validation images have the shape and the classes of the training images."""
    shapes = [tuple(next(iter(images.load([torch.tensor([0])])))[0].shape[1:]) for images in (train, validation)]
    if shapes[0] != shapes[1]:
        raise ArgumentError("validation", f"images of shape {shapes[0]} as in the training data", shapes[1])
    if has_named_classes(train) and has_named_classes(validation) and train.classes != validation.classes:
        got = ", ".join(validation.classes[:5])
        expected = f"the {len(train.classes)} classes of the training data, {', '.join(train.classes[:5])}, ..."
        raise ArgumentError("validation", expected, f"{len(validation.classes)} classes, {got}, ...")
    largest = int(validation.labels.max())
    if largest >= len(train.classes):
        raise ArgumentError("validation", f"labels in 0..{len(train.classes) - 1} as in the training data", largest)
