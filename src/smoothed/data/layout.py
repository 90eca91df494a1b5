"""Where a folder-per-class set keeps its splits, its classes and its files."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from smoothed.data.folder import IMAGE_SIZE, FolderSet, default_workers
from smoothed.data.split import SPLITS, VALIDATION_IMAGES, split_validation
from smoothed.errors import DataError
from smoothed.utils.checks import check_choice

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
# One image in so many is held out for validation where the set has no such split.
HELD_OUT = 10


def load_folder(
    path: Path | str, split: str = "test", *, image_size: int = IMAGE_SIZE, workers: int | None = None
) -> FolderSet:
    """One split of a set with a folder per class.

    `PATH/train/CLASS/` lies beside `PATH/test/CLASS/`, `PATH/val/CLASS/` (or `validation`), both or neither; or there
    is `PATH/CLASS/` alone, all of it for training. Where `val` is the only split beside `train`, it is the test split,
    so that no choice is made on what is reported. Where no split is left for validation, a tenth of the training
    images (5,000 at most) is held out, stratified. Classes take turns in the order of the images, so that the first
    ones hold each class by its share; those of one class are sorted by name.

    Args:
        path: of the folder.
        split: `test`, `validation` or `train`.
        image_size: height and width of the images that come out.
        workers: processes that decode; as many as there are CPUs, four at most, when None.

    Raises:
        DataError: a folder is missing or empty, splits differ in their classes, or there are fewer than two.
    """
    check_choice(split, SPLITS, "split")
    layout = _Layout.of(path)
    if split in layout.places and split != "train":
        return layout.read(split, image_size, workers)
    if split == "test":
        raise DataError(f"{layout.root}: expected a test split in test or val, found neither; use --split validation")
    train, validation = load_folder_training(path, image_size=image_size, workers=workers)
    return train if split == "train" else validation


def load_folder_training(
    path: Path | str, *, image_size: int = IMAGE_SIZE, workers: int | None = None
) -> tuple[FolderSet, FolderSet]:
    """The training and the validation split; arguments and errors as in `load_folder`."""
    layout = _Layout.of(path)
    train = layout.read("train", image_size, workers)
    if "validation" in layout.places:
        return train, layout.read("validation", image_size, workers)
    return split_validation(train, min(VALIDATION_IMAGES, max(1, len(train) // HELD_OUT)))


@dataclass(frozen=True)
class _Layout:
    """The folder of each split that there is, and the classes that all have."""

    root: Path
    places: Mapping[str, Path]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, path: Path | str) -> "_Layout":
        root = Path(path).expanduser().resolve()
        if not root.is_dir():
            raise DataError(f"{root}: expected a folder that holds a folder of images per class, found none")
        places = _places(root)
        return cls(root, places, _common_classes(list(places.values())))

    def read(self, split: str, image_size: int, workers: int | None) -> FolderSet:
        """All images of a split's folder."""
        if split not in self.places:
            raise DataError(f"{self.root}: expected the folder {split} in it, found none")
        by_class = [_files(self.places[split] / name) for name in self.classes]
        files = [file for of_class in by_class for file in of_class]
        sizes = torch.tensor([len(of_class) for of_class in by_class])
        labels = torch.arange(len(sizes)).repeat_interleave(sizes)
        # How far each image is through its class: in this order the classes take turns.
        shares = torch.cat([(torch.arange(size, dtype=torch.float64) + 0.5) / size for size in sizes.tolist()])
        order = shares.argsort(stable=True)
        return FolderSet(
            f"{self.root.name} {split}",
            tuple(files[place] for place in order.tolist()),
            labels[order],
            self.classes,
            image_size=image_size,
            workers=default_workers() if workers is None else workers,
        )


def _places(root: Path) -> dict[str, Path]:
    """The folder of each split, by the name of what it is used as."""
    places = {name: root / name for name in ("train", "test", "val", "validation") if (root / name).is_dir()}
    if not places:
        return {"train": root}
    if "val" in places and "validation" in places:
        raise DataError(f"{root}: expected val or validation in it, found both; leave one")
    held_out = places.pop("val", None) or places.pop("validation", None)
    if held_out is not None:
        places["validation" if "test" in places else "test"] = held_out
    return places


def _common_classes(places: list[Path]) -> tuple[str, ...]:
    first, *others = places
    classes = tuple(sorted(entry.name for entry in _entries(first) if entry.is_dir()))
    if len(classes) < 2:
        got = f"only {classes[0]}" if classes else "none"
        raise DataError(f"{first}: expected a folder per class in it, at least two, found {got}")
    for other in others:
        different = sorted({entry.name for entry in _entries(other) if entry.is_dir()} ^ set(classes))
        if different:
            raise DataError(
                f"{other}: expected the class folders of {first}, got others: "
                f"{len(different)} are in one of them alone, such as {different[0]}"
            )
    return classes


def _files(folder: Path) -> list[str]:
    entries = _entries(folder)
    files = [entry.path for entry in entries if entry.name.lower().endswith(SUFFIXES) and entry.is_file()]
    if not files:
        raise DataError(f"{folder}: expected images ({', '.join(SUFFIXES)}) in it, found none")
    return sorted(files)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, but for what is hidden."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: could not be read ({error.strerror or error})") from None
