"""Data sets as the command line names them: `sample`, `cifar10`, `cifar100`, or the folder of a CIFAR."""

from pathlib import Path

from smoothed.checks import check_choice
from smoothed.data.cifar import CIFARS, data_root, load_cifar
from smoothed.data.imageset import ImageSet
from smoothed.data.sample import load_sample
from smoothed.data.split import split_validation
from smoothed.errors import DataError

SPLITS = ("test", "validation", "train")


def load_images(data: str, split: str = "test") -> ImageSet:
    """The images that `data` names.

    Args:
        data: `sample` (1,000 bundled CIFAR-10 test images), `cifar10`, `cifar100`, or a folder with one of them.
        split: `test`, `validation` (5,000 held out of the training set) or `train` (the rest of it).

    Raises:
        DataError: not found or damaged; `sample` has a test split alone.
    """
    check_choice(split, SPLITS, "split")
    if data == "sample":
        if split != "test":
            raise DataError(f"split: expected test with --data sample, got {split}; use --data cifar10")
        return load_sample()
    name, root = _resolve(data)
    if split == "test":
        return load_cifar(name, "test", root)
    train, validation = split_validation(load_cifar(name, "train", root))
    return train if split == "train" else validation


def load_training(data: str) -> tuple[str, ImageSet, ImageSet]:
    """The name of a CIFAR, its training part and its validation part; `data` and errors as in `load_images`."""
    name, root = _resolve(data)
    return (name, *split_validation(load_cifar(name, "train", root)))


def _resolve(data: str) -> tuple[str, Path | None]:
    if data in CIFARS:
        return data, None
    path = data_root(data)
    found = [cifar for cifar in CIFARS.values() if cifar.folder in (path.name, *(p.name for p in _folders(path)))]
    if not path.is_dir() or not found:
        known = ", ".join(("sample", *CIFARS))
        folders = " or ".join(cifar.folder for cifar in CIFARS.values())
        raise DataError(f"data: expected {known}, or a folder with {folders} in it, got {data}")
    if len(found) > 1:
        raise DataError(f"data: expected one data set in {path}, found both; name the inner folder")
    return found[0].name, path


def _folders(path: Path) -> list[Path]:
    return [child for child in path.iterdir() if child.is_dir()] if path.is_dir() else []
