"""Folders of image files: which is which split, in what order, and what is wrong with them."""

import shutil
from fractions import Fraction

import pytest
import torch
from PIL import Image

from smoothed.data.layout import load_folder, load_folder_training
from smoothed.data.split import default_validation_count
from smoothed.errors import ArgumentError, DataError

CLASSES = ("cat", "dog")


def sizes(**splits):
    """{"train/cat": ..., "train/dog": ...} from the images a class of each split."""
    return {f"{split}/{name}": count for split, count in splits.items() for name in CLASSES}


def paths(images, root):
    return [file.removeprefix(f"{root.resolve()}/") for file in images.files]


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_three_splits(tmp_path, write_folder, validation):
    write_folder(tmp_path, sizes(train=20, test=3, **{validation: 2}))
    for split, folder, count in (("train", "train", 40), ("validation", validation, 4), ("test", "test", 6)):
        images = load_folder(tmp_path, split)
        assert images.name == f"{tmp_path.name} {split}"
        assert images.classes == CLASSES
        assert len(images) == len(images.labels) == count
        assert images.labels.dtype == torch.int64
        for path, label in zip(paths(images, tmp_path), images.labels.tolist(), strict=True):
            assert path.startswith(f"{folder}/{CLASSES[label]}/")
    train, held_out = load_folder_training(tmp_path)
    assert train.files == load_folder(tmp_path, "train").files
    assert held_out.files == load_folder(tmp_path, "validation").files


def held_out_of(root, folder, whole):
    """The validation split, once checked: it and train are all `whole` images of `folder`, without overlap."""
    train, validation = load_folder(root, "train"), load_folder(root, "validation")
    assert not set(train.files) & set(validation.files)
    assert len(train) + len(validation) == whole
    for images, split in ((train, "train"), (validation, "validation")):
        assert images.name == f"{root.name} {split}"
        for path, label in zip(paths(images, root), images.labels.tolist(), strict=True):
            assert path.startswith(f"{folder}{CLASSES[label]}/")
    again = load_folder_training(root)
    assert [part.files for part in again] == [train.files, validation.files]
    return validation


def test_validation_is_held_out_where_there_is_only_a_test_split(tmp_path, write_folder):
    write_folder(tmp_path, sizes(train=20, test=3))
    assert held_out_of(tmp_path, "train/", 40).labels.bincount().tolist() == [2, 2]
    assert {path.split("/")[0] for path in paths(load_folder(tmp_path, "test"), tmp_path)} == {"test"}


@pytest.mark.parametrize("name", ["val", "validation"])
def test_a_lone_val_is_the_test_split_and_never_the_validation_split(tmp_path, write_folder, name):
    write_folder(tmp_path, sizes(train=20, **{name: 3}))
    test = load_folder(tmp_path, "test")
    assert {path.split("/")[0] for path in paths(test, tmp_path)} == {name}
    assert test.name == f"{tmp_path.name} test"
    assert held_out_of(tmp_path, "train/", 40).labels.bincount().tolist() == [2, 2]


def test_classes_alone_have_no_test_split(tmp_path, write_folder):
    write_folder(tmp_path, {"cat": 20, "dog": 10})
    assert held_out_of(tmp_path, "", 30).labels.bincount().tolist() == [2, 1]
    with pytest.raises(
        DataError, match=f"{tmp_path.name}: expected a test split in the folder test or val, found neither"
    ):
        load_folder(tmp_path)


def test_a_test_split_alone(tmp_path, write_folder):
    write_folder(tmp_path, sizes(val=3))
    assert len(load_folder(tmp_path)) == 6
    for split in ("train", "validation"):
        with pytest.raises(DataError, match=f"{tmp_path.name}: expected it to contain the folder train, found none"):
            load_folder(tmp_path, split)


@pytest.mark.parametrize(("count", "held_out"), [(1, 1), (9, 1), (15, 3), (50, 10)])
def test_a_tenth_is_held_out(tmp_path, count, held_out):
    write_names(tmp_path, {"cat": count, "dog": count})
    assert len(load_folder(tmp_path, "validation")) == held_out


def write_names(root, counts):
    """Empty files: enough where nothing is decoded."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / folder / f"{i:05}.jpg").touch()


def test_no_more_than_five_thousand_are_held_out(tmp_path, monkeypatch):
    monkeypatch.setattr("smoothed.data.split.VALIDATION_IMAGES", 5)
    write_names(tmp_path, {"cat": 40, "dog": 40})
    assert len(load_folder(tmp_path, "validation")) == 5


@pytest.mark.parametrize(("images", "held_out"), [(2, 1), (19, 1), (20, 2), (49_999, 4999), (10**6, 5000)])
def test_the_default_number_of_validation_images(images, held_out):
    assert default_validation_count(images) == held_out


@pytest.mark.parametrize("counts", [(4, 4, 4), (7, 2, 3), (1, 30, 9)])
def test_classes_take_turns_and_files_of_a_class_are_sorted(tmp_path, counts):
    write_names(tmp_path, {f"test/{name}": count for name, count in zip("abc", counts, strict=True)})
    images = load_folder(tmp_path)
    for label, count in enumerate(counts):
        of_class = [
            path for path, at in zip(paths(images, tmp_path), images.labels.tolist(), strict=True) if at == label
        ]
        assert of_class == [f"test/{'abc'[label]}/{i:05}.jpg" for i in range(count)]
    for end in range(1, sum(counts) + 1):
        there = images.labels[:end].bincount(minlength=3).tolist()
        for count, share in zip(counts, there, strict=True):
            assert abs(share - Fraction(count * end, sum(counts))) < 1.5
    if len(set(counts)) == 1:
        assert images.labels.tolist() == [0, 1, 2] * 4


def test_the_suffix_decides_what_is_an_image(tmp_path):
    names = ["a.jpg", "b.JPEG", "c.Png", "d.bmp", "e.webp", "f.ppm", "g.tif", "h.tiff", "i.j.png"]
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / "saved", format="png")
        for folder in ("test/cat", "test/dog"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "saved", tmp_path / folder / name)
    for other in ("notes.txt", "png", "a.gif", "b.jpg.part", ".hidden.jpg", "._a.jpg"):
        (tmp_path / "test" / "cat" / other).write_text("x")
    (tmp_path / "test" / "cat" / "folder.jpg").mkdir()
    (tmp_path / "test" / ".cache").mkdir()
    (tmp_path / "test" / "list.csv").touch()
    images = load_folder(tmp_path)
    assert images.classes == CLASSES
    assert [path for path in paths(images, tmp_path) if "cat" in path] == [f"test/cat/{name}" for name in names]
    assert sum(len(labels) for _, labels in images.batches(4)) == 18


def test_options_reach_the_set(tmp_path):
    write_names(tmp_path, sizes(train=2, test=2))
    for split in ("train", "validation", "test"):
        images = load_folder(str(tmp_path), split, image_size=17, workers=1)
        assert (images.image_size, images.workers) == (17, 1)
    images = load_folder(tmp_path)
    assert images.image_size == 224
    assert 1 <= images.workers <= 4
    assert images.device == torch.device("cpu")


def test_a_folder_under_home(tmp_path, monkeypatch):
    write_names(tmp_path / "sets", sizes(test=2))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_folder("~/sets")) == 4


@pytest.mark.parametrize("load", [load_folder, load_folder_training])
def test_no_folder(tmp_path, load):
    (tmp_path / "file").touch()
    for name in ("none", "file"):
        with pytest.raises(
            DataError, match=f"{name}: expected a folder that contains one folder of images per class, found"
        ):
            load(tmp_path / name)


def test_no_class_folders(tmp_path):
    with pytest.raises(
        DataError, match=f"{tmp_path.name}: expected it to contain one folder per class, at least two, found none"
    ):
        load_folder(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.jpg").touch()
    with pytest.raises(DataError, match="train: expected it to contain one folder per class, at least two, found none"):
        load_folder(tmp_path, "train")


def test_one_class(tmp_path):
    write_names(tmp_path, {"train/cat": 3})
    with pytest.raises(
        DataError, match="train: expected it to contain one folder per class, at least two, found only cat"
    ):
        load_folder(tmp_path, "train")


def test_a_class_without_images(tmp_path):
    write_names(tmp_path, {"train/cat": 3, "train/dog": 0, "test/cat": 1, "test/dog": 1})
    (tmp_path / "train" / "dog" / "notes.txt").touch()
    with pytest.raises(DataError, match=r"train/dog: expected it to contain images \(\.jpg, .*\.tiff\), found none"):
        load_folder(tmp_path, "train")
    assert len(load_folder(tmp_path, "test")) == 2


@pytest.mark.parametrize("other", [{"test/cat": 1}, {"test/cat": 1, "test/dog": 1, "test/eel": 1}, {"test/c": 1}])
@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_that_differ_between_splits(tmp_path, other, split):
    write_names(tmp_path, {"train/cat": 3, "train/dog": 3, **other})
    with pytest.raises(
        DataError, match=r"test: expected the same class folders as in .*train, got others: \d exist in only one of"
    ):
        load_folder(tmp_path, split)


def test_both_names_of_a_validation_split(tmp_path):
    write_names(tmp_path, sizes(train=3, val=1, validation=1))
    with pytest.raises(
        DataError, match=f"{tmp_path.name}: expected a folder val or validation, found both; remove one"
    ):
        load_folder(tmp_path, "train")


def test_an_unknown_split(tmp_path):
    with pytest.raises(ArgumentError, match="split: expected one of test, validation, train, got 'val'"):
        load_folder(tmp_path, "val")
