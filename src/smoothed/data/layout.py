"""Splits, classes and files of a data set with one folder of images per class."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from smoothed.data.folder import IMAGE_SIZE, FolderSet, default_workers
from smoothed.data.split import SPLITS, default_validation_count, split_validation
from smoothed.errors import DataError
from smoothed.utils.checks import check_choice

SPLIT_FOLDERS = ("train", "test", "val", "validation")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")


def load_folder(
    path: Path | str, split: str = "test", *, image_size: int = IMAGE_SIZE, workers: int | None = None
) -> FolderSet:
    """Load one split of a data set with one folder of images per class.

    The images of a class lie in `PATH/train/CLASS/` and optionally in `PATH/test/CLASS/` and `PATH/val/CLASS/` (or
    `validation`); or all images lie in `PATH/CLASS/` and are training images. If `val` is the only split besides
    `train`, it is the test split, so that choices made on validation images do not affect reported results. Without a
    validation split, a tenth of the training images (at most 5,000) is held out, stratified by class. The classes
    alternate in the order of the images, so that the first images contain all classes in proportion; the images of one
    class are sorted by name.

    Args:
        path: folder of the data set.
        split: `test`, `validation` or `train`.
        image_size: height and width of the decoded images, in pixels.
        workers: number of processes that decode images; None for the number of available CPUs, at most four.

    Raises:
        ArgumentError: the split is unknown.
        DataError: a folder is missing or empty, splits have different classes, or there are fewer than two classes.
    """
    check_choice(split, SPLITS, "split")
    layout = _Layout.of(path)
    if split in layout.folders and split != "train":
        return layout.read(split, image_size, workers)
    if split == "test":
        raise DataError(
            f"{layout.root}: expected a test split in the folder test or val, found neither; use split validation"
        )
    train, validation = load_folder_training(path, image_size=image_size, workers=workers)
    return train if split == "train" else validation


def load_folder_training(
    path: Path | str, *, image_size: int = IMAGE_SIZE, workers: int | None = None
) -> tuple[FolderSet, FolderSet]:
    """Load the training and the validation split; arguments and errors are those of `load_folder`."""
    layout = _Layout.of(path)
    train = layout.read("train", image_size, workers)
    if "validation" in layout.folders:
        return train, layout.read("validation", image_size, workers)
    return split_validation(train, default_validation_count(len(train)))


def is_image_folder(path: Path) -> bool:
    """Whether a folder has splits (`train`, `test`, `val`), or folders that contain images."""
    if not path.is_dir():
        return False
    folders = [entry for entry in _entries(path) if entry.is_dir()]
    if any(folder.name in SPLIT_FOLDERS for folder in folders):
        return True
    return any(
        entry.name.lower().endswith(IMAGE_SUFFIXES) for folder in folders for entry in _entries(Path(folder.path))
    )


@dataclass(frozen=True)
class _Layout:
    """Folders of the existing splits, and their common classes."""

    root: Path
    folders: Mapping[str, Path]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, path: Path | str) -> "_Layout":
        root = Path(path).expanduser().resolve()
        if not root.is_dir():
            raise DataError(f"{root}: expected a folder that contains one folder of images per class, found none")
        folders = _split_folders(root)
        return cls(root, folders, _common_classes(list(folders.values())))

    def read(self, split: str, image_size: int, workers: int | None) -> FolderSet:
        """The set of all images in the folder of a split."""
        if split not in self.folders:
            raise DataError(f"{self.root}: expected it to contain the folder {split}, found none")
        by_class = [_files(self.folders[split] / name) for name in self.classes]
        files = [file for of_class in by_class for file in of_class]
        sizes = torch.tensor([len(of_class) for of_class in by_class])
        labels = torch.arange(len(sizes)).repeat_interleave(sizes)
        # Relative position of each image within its class; sorting by it makes the classes alternate.
        relative_positions = torch.cat(
            [(torch.arange(size, dtype=torch.float64) + 0.5) / size for size in sizes.tolist()]
        )
        order = relative_positions.argsort(stable=True)
        return FolderSet(
            f"{self.root.name} {split}",
            tuple(files[index] for index in order.tolist()),
            labels[order],
            self.classes,
            image_size=image_size,
            workers=default_workers() if workers is None else workers,
        )


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders of the splits, by the name of the split they are used as."""
    folders = {name: root / name for name in SPLIT_FOLDERS if (root / name).is_dir()}
    if not folders:
        return {"train": root}
    if "val" in folders and "validation" in folders:
        raise DataError(f"{root}: expected a folder val or validation, found both; remove one")
    held_out = folders.pop("val", None) or folders.pop("validation", None)
    if held_out is not None:
        folders["validation" if "test" in folders else "test"] = held_out
    return folders


def _common_classes(folders: list[Path]) -> tuple[str, ...]:
    """The class names, which have to be the same in all splits."""
    first, *others = folders
    classes = tuple(sorted(entry.name for entry in _entries(first) if entry.is_dir()))
    if len(classes) < 2:
        got = f"only {classes[0]}" if classes else "none"
        raise DataError(f"{first}: expected it to contain one folder per class, at least two, found {got}")
    for other in others:
        different = sorted({entry.name for entry in _entries(other) if entry.is_dir()} ^ set(classes))
        if different:
            raise DataError(
                f"{other}: expected the same class folders as in {first}, got others: "
                f"{len(different)} exist in only one of the two, such as {different[0]}"
            )
    return classes


def _files(folder: Path) -> list[str]:
    entries = _entries(folder)
    files = [entry.path for entry in entries if entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file()]
    if not files:
        raise DataError(f"{folder}: expected it to contain images ({', '.join(IMAGE_SUFFIXES)}), found none")
    return sorted(files)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: could not be read ({error.strerror or error})") from None
