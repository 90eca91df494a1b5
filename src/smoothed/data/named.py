"""Data sets by their names on the command line.

The names are `sample`, `cifar10`, `cifar100`, the folder of a CIFAR data set, and the folder of a data set with one
folder of images per class, with or without the prefix `imagefolder:`. Image folders give images of 224 x 224 pixels,
`imagefolder:PATH@64` gives 64 x 64. If the last component of a path contains an `@`, the size is required:
`imagefolder:my@set@224`.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from smoothed.data.cifar import CIFARS, data_root, load_cifar
from smoothed.data.folder import IMAGE_SIZE, MAX_IMAGE_SIZE
from smoothed.data.images import Images
from smoothed.data.layout import is_image_folder, load_folder, load_folder_training
from smoothed.data.sample import load_sample
from smoothed.data.split import SPLITS, split_validation
from smoothed.errors import DataError
from smoothed.utils.checks import check_choice

FOLDER_PREFIX = "imagefolder:"
SAMPLE_NAME = "sample"


def load_images(data: str, split: str = "test") -> Images:
    """Load one split of a data set.

    Args:
        data: `sample` (1,000 bundled CIFAR-10 test images), `cifar10`, `cifar100`, a folder that contains one of them,
            or a folder of images, `PATH`, `PATH@SIZE` or `imagefolder:PATH[@SIZE]`, whose splits `load_folder`
            describes.
        split: `test`, `validation` (for CIFAR, 5,000 images held out of the training set) or `train` (the rest of the
            training set). `sample` has only `test`.

    Raises:
        ArgumentError: the split is unknown.
        DataError: the data set or its split does not exist, or a file is damaged.
    """
    check_choice(split, SPLITS, "split")
    if data == SAMPLE_NAME:
        if split != "test":
            raise DataError(f"split: expected test with the data set sample, got {split}; use cifar10")
        return load_sample()
    found, path = _find_data(data, (SAMPLE_NAME, *CIFARS))
    if found.startswith(FOLDER_PREFIX):
        folder, size = _path_and_size(found)
        return load_folder(folder, split, image_size=size)
    if split == "test":
        return load_cifar(found, "test", path)
    train, validation = split_validation(load_cifar(found, "train", path))
    return train if split == "train" else validation


def load_training(data: str) -> tuple[str, Images, Images]:
    """Load the training and the validation split of a data set.

    Args:
        data: as in `load_images`, without `sample`.

    Returns:
        The name of the data set for `TrainingConfig.data` (`imagefolder:PATH` for a folder of images with or without
        the prefix), the training split and the validation split.

    Raises:
        DataError: the data set does not exist or has no training images, or a file is damaged.
    """
    if data == SAMPLE_NAME:
        raise DataError(
            f"data: expected {_describe(CIFARS)}, got {data}, which has test images only; use cifar10 for training"
        )
    found, path = _find_data(data, tuple(CIFARS))
    if found.startswith(FOLDER_PREFIX):
        folder, size = _path_and_size(found)
        return (found, *load_folder_training(folder, image_size=size))
    return (found, *split_validation(load_cifar(found, "train", path)))


def _describe(names: Iterable[str]) -> str:
    folders = " or ".join(cifar.folder for cifar in CIFARS.values())
    return (
        f"{', '.join(names)}, or a folder that contains {folders}, or a folder PATH (also {FOLDER_PREFIX}PATH[@SIZE]) "
        "with one folder of images per class"
    )


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


def _find_data(data: str, names: tuple[str, ...]) -> tuple[str, Path | None]:
    """The name of a data set, `imagefolder:PATH[@SIZE]` for a folder of images, and the folder of a CIFAR."""
    if data in CIFARS or data.startswith(FOLDER_PREFIX):
        return data, None
    path = data_root(data)
    found = [cifar for cifar in CIFARS.values() if cifar.folder in (path.name, *(p.name for p in _folders(path)))]
    if len(found) > 1:
        raise DataError(f"data: expected one data set in {path}, found both; pass the folder of one of them")
    if found and path.is_dir():
        return found[0].name, path
    if is_image_folder(path):
        return f"{FOLDER_PREFIX}{data}{f'@{IMAGE_SIZE}' if '@' in path.name else ''}", None
    if re.search("@[0-9]{1,4}$", data) and is_image_folder(data_root(data.rpartition("@")[0])):
        return f"{FOLDER_PREFIX}{data}", None
    got = f"{data}, which contains none of them" if path.is_dir() else f"{data}, which is neither a name nor a folder"
    raise DataError(f"data: expected {_describe(names)}, got {got}")


def _folders(path: Path) -> list[Path]:
    return [child for child in path.iterdir() if child.is_dir()] if path.is_dir() else []
