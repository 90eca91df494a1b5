"""Data sets as the command line names them.

`sample`, `cifar10`, `cifar100`, the folder of a CIFAR, or `imagefolder:PATH`, a set with a folder of images per class.
Its images are 224 pixels high and wide; `imagefolder:PATH@64` asks for 64. An `@` in the last part of a path is taken
for that of a size, so such a path needs one: `imagefolder:my@set@224`.
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
    """The images that `data` names.

    Args:
        data: `sample` (1,000 bundled CIFAR-10 test images), `cifar10`, `cifar100`, a folder with one of them,
            or `imagefolder:PATH[@SIZE]`, whose splits `load_folder` describes.
        split: `test`, `validation` (of CIFAR, 5,000 held out of the training set) or `train` (the rest of it).

    Raises:
        DataError: not found or damaged; `sample` has a test split alone.
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
    """What to call the data, its training part and its validation part; `data` and errors as in `load_images`.

    The name is `cifar10` or `cifar100`, or all of `imagefolder:PATH[@SIZE]` as it was given.
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
            f"data: expected {known}, or a folder with {folders} in it, or {FOLDER_PREFIX}PATH[@SIZE] with a folder of "
            f"images per class in PATH, got {data}"
        )
    if len(found) > 1:
        raise DataError(f"data: expected one data set in {path}, found both; name the inner folder")
    return found[0].name, path


def _folders(path: Path) -> list[Path]:
    return [child for child in path.iterdir() if child.is_dir()] if path.is_dir() else []
