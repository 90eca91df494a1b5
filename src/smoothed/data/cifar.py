"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), read from the folders of their official Python versions."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from smoothed.data.imageset import ImageSet
from smoothed.data.unpickle import read_pickle
from smoothed.errors import DataError
from smoothed.utils.checks import check_choice

DATA_VARIABLE = "SMOOTHED_DATA"
"""Environment variable with the folder that holds data sets."""


@dataclass(frozen=True)
class Cifar:
    """Location and file layout of a CIFAR data set.

    Attributes:
        name: name of the data set on the command line.
        folder: name of its folder.
        archive: file name of its official archive.
        md5: MD5 sum of the archive.
        files: names of the files of each split.
        label_key: key of the labels in these files.
        classes_file: name of the file with the class names.
        classes_key: key of the class names in this file.
        num_classes: number of classes.
    """

    name: str
    folder: str
    archive: str
    md5: str
    files: dict[str, tuple[str, ...]]
    label_key: bytes
    classes_file: str
    classes_key: bytes
    num_classes: int


CIFARS = {
    cifar.name: cifar
    for cifar in (
        Cifar(
            name="cifar10",
            folder="cifar-10-batches-py",
            archive="cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            files={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
            label_key=b"labels",
            classes_file="batches.meta",
            classes_key=b"label_names",
            num_classes=10,
        ),
        Cifar(
            name="cifar100",
            folder="cifar-100-python",
            archive="cifar-100-python.tar.gz",
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            files={"train": ("train",), "test": ("test",)},
            label_key=b"fine_labels",
            classes_file="meta",
            classes_key=b"fine_label_names",
            num_classes=100,
        ),
    )
}


def data_root(root: Path | str | None = None) -> Path:
    """Return the folder that holds data sets: `root`, else `$SMOOTHED_DATA`, else `~/.cache/smoothed`."""
    if root is not None:
        return Path(root).expanduser().absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "smoothed"
    return Path(os.environ.get(DATA_VARIABLE) or cache).expanduser().absolute()


def load_cifar(name: str, split: str = "test", root: Path | str | None = None) -> ImageSet:
    """Load the images of one split into memory, in the order of the files.

    Args:
        name: `cifar10` or `cifar100`.
        split: `train` or `test`.
        root: folder that contains `cifar-10-batches-py` or `cifar-100-python`, or this folder itself; None for the
            default of `data_root`.

    Raises:
        ArgumentError: the name or the split is unknown.
        DataError: the folder or a file is missing or truncated, or is not part of this data set.
    """
    check_choice(name, CIFARS, "name")
    cifar = CIFARS[name]
    check_choice(split, cifar.files, "split")
    parent = data_root(root)
    folder = parent if parent.name == cifar.folder else parent / cifar.folder
    if not folder.is_dir():
        raise DataError(
            f"{name}: expected the folder {cifar.folder} in {parent}, found none; "
            f"run `smoothed download {name}`, or set --data or ${DATA_VARIABLE} to the folder that contains it"
        )
    parts = [_read_part(folder / file, cifar) for file in cifar.files[split]]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ImageSet(f"{name} {split}", torch.from_numpy(images), torch.from_numpy(labels), _class_names(folder, cifar))


def _read_part(path: Path, cifar: Cifar) -> tuple[np.ndarray, np.ndarray]:
    content = read_pickle(path)
    data, labels = content.get(b"data"), content.get(cifar.label_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * 32 * 32:
        got = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"{path}: expected uint8 data of shape (N, 3072), got {got}; this is not a {cifar.name} file")
    if not isinstance(labels, list) or len(labels) != len(data):
        got = f"{len(labels)}" if isinstance(labels, list) else "none"
        raise DataError(f"{path}: expected {len(data)} {cifar.label_key.decode()}, got {got}; the file is damaged")
    if not all(type(label) is int and 0 <= label < cifar.num_classes for label in labels):
        raise DataError(f"{path}: expected integer labels in 0..{cifar.num_classes - 1}; the file is damaged")
    return data.reshape(-1, 3, 32, 32), np.asarray(labels, dtype=np.int64)


def _class_names(folder: Path, cifar: Cifar) -> tuple[str, ...]:
    path = folder / cifar.classes_file
    names = read_pickle(path).get(cifar.classes_key)
    if not isinstance(names, list) or len(names) != cifar.num_classes:
        raise DataError(f"{path}: expected {cifar.num_classes} class names; the file is damaged, download it again")
    return tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names)
