"""Data sets by their names on the command line.

The names are `sample`, `cifar10`, `cifar100`, the folder of a CIFAR data set, and `imagefolder:PATH` for a data set
with one folder of images per class. Image folders give images of 224 x 224 pixels, `imagefolder:PATH@64` gives 64 x 64.
If the last component of a path contains an `@`, the size is required: `imagefolder:my@set@224`.
"""

import os
import re
from pathlib import Path

from smoothed.data.cifar import CIFARS, data_root, load_cifar
from smoothed.data.folder import IMAGE_SIZE, MAX_IMAGE_SIZE
from smoothed.data.images import Images
from smoothed.data.layout import load_folder, load_folder_training
from smoothed.data.sample import load_sample
from smoothed.data.split import SPLITS, split_validation
from smoothed.errors import DataError
from smoothed.utils.checks import check_choice

FOLDER_PREFIX = "imagefolder:"


def load_images(data: str, split: str = "test") -> Images:
    """Load one split of a data set.

    Args:
        data: `sample` (1,000 bundled CIFAR-10 test images), `cifar10`, `cifar100`, a folder that contains one of them,
            or `imagefolder:PATH[@SIZE]`, whose splits `load_folder` describes.
        split: `test`, `validation` (for CIFAR, 5,000 images held out of the training set) or `train` (the rest of the
            training set). `sample` has only `test`.

    Raises:
        ArgumentError: the split is unknown.
        DataError: the data set or its split does not exist, or a file is damaged.
    """
    check_choice(split, SPLITS, "split")
    if data == "sample":
        if split != "test":
            raise DataError(f"split: expected test with --data sample, got {split}; use --data cifar10")
        return load_sample()
    if data.startswith(FOLDER_PREFIX):
        path, size = _path_and_size(data)
        return load_folder(path, split, image_size=size)
    name, root = _resolve(data)
    if split == "test":
        return load_cifar(name, "test", root)
    train, validation = split_validation(load_cifar(name, "train", root))
    return train if split == "train" else validation


def load_training(data: str) -> tuple[str, Images, Images]:
    """Load the training and the validation split of a data set.

    Args:
        data: as in `load_images`, without `sample`.

    Returns:
        The name of the data set for `TrainingConfig.data`, the training split and the validation split.

    Raises:
        DataError: the data set does not exist, or a file is damaged.
    """
    if data.startswith(FOLDER_PREFIX):
        path, size = _path_and_size(data)
        return (data, *load_folder_training(path, image_size=size))
    name, root = _resolve(data)
    return (name, *split_validation(load_cifar(name, "train", root)))


def _path_and_size(data: str) -> tuple[str, int]:
    path, at, size = data.removeprefix(FOLDER_PREFIX).rpartition("@")
    if not at or "/" in size or os.sep in size:
        path, size = path + at + size, str(IMAGE_SIZE)
    if not path or not re.fullmatch("[0-9]{1,4}", size) or not 1 <= int(size) <= MAX_IMAGE_SIZE:
        raise DataError(
            f"data: expected {FOLDER_PREFIX}PATH or {FOLDER_PREFIX}PATH@SIZE with a SIZE in 1..{MAX_IMAGE_SIZE} "
            f"pixels, got {data}"
        )
    return path, int(size)


def _resolve(data: str) -> tuple[str, Path | None]:
    if data in CIFARS:
        return data, None
    path = data_root(data)
    found = [cifar for cifar in CIFARS.values() if cifar.folder in (path.name, *(p.name for p in _folders(path)))]
    if not path.is_dir() or not found:
        known = ", ".join(("sample", *CIFARS))
        folders = " or ".join(cifar.folder for cifar in CIFARS.values())
        raise DataError(
            f"data: expected {known}, or a folder that contains {folders}, or {FOLDER_PREFIX}PATH[@SIZE] with one "
            f"folder of images per class in PATH, got {data}"
        )
    if len(found) > 1:
        raise DataError(f"data: expected one data set in {path}, found both; pass the folder of one of them")
    return found[0].name, path


def _folders(path: Path) -> list[Path]:
    return [child for child in path.iterdir() if child.is_dir()] if path.is_dir() else []
