"""Data sets by the names of the command line."""

import re

import pytest
import torch

from smoothed.data.cifar import load_cifar
from smoothed.data.named import load_images, load_training
from smoothed.data.sample import load_sample
from smoothed.errors import ArgumentError, DataError

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


def test_the_sample():
    assert torch.equal(load_images("sample").images, load_sample().images)


@pytest.mark.parametrize("split", ["validation", "train"])
def test_the_sample_has_a_test_split_alone(split):
    with pytest.raises(DataError, match=f"split: expected test with the data set sample, got {split}; use cifar10"):
        load_images("sample", split)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_name_a_folder_and_its_parent_are_the_same_set(tmp_path, write_cifar, monkeypatch, name):
    images, _ = write_cifar(tmp_path, name)
    monkeypatch.setenv("SMOOTHED_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path / FOLDERS[name])
    for data in (name, str(tmp_path), str(tmp_path / FOLDERS[name]), f"{tmp_path}/{FOLDERS[name]}/", "..", "."):
        found = load_images(data)
        assert found.name == f"{name} test"
        assert torch.equal(found.images, torch.from_numpy(images["test"]))


def test_a_folder_under_home(tmp_path, write_cifar, monkeypatch):
    write_cifar(tmp_path / "sets", "cifar100")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_images("~/sets").name == "cifar100 test"


@pytest.mark.parametrize(("name", "files"), [("cifar10", 5), ("cifar100", 1)])
def test_train_and_validation_are_the_training_set(tmp_path, write_cifar, name, files):
    write_cifar(tmp_path, name, count=5010 // files)
    data, whole = str(tmp_path), load_cifar(name, "train", tmp_path)
    train, validation = load_images(data, "train"), load_images(data, "validation")
    assert (len(train), len(validation)) == (10, 5000)
    assert (train.name, validation.name) == (f"{name} train", f"{name} validation")
    rows = {image.numpy().tobytes() for part in (train, validation) for image in part.images}
    assert rows == {image.numpy().tobytes() for image in whole.images}

    found, training, held_out = load_training(data)
    assert found == name
    assert torch.equal(training.images, train.images)
    assert torch.equal(held_out.images, validation.images)


@pytest.mark.parametrize("load", [load_images, load_training])
def test_what_is_no_data_set(tmp_path, load):
    (tmp_path / "file").write_text("x")
    for data in (
        "mnist",
        str(tmp_path),
        str(tmp_path / "none"),
        str(tmp_path / "file"),
        str(tmp_path / FOLDERS["cifar10"]),
    ):
        known = "sample, cifar10, cifar100" if load is load_images else "cifar10, cifar100"
        expected = f"data: expected {known}, or a folder that contains cifar-10-batches-py or cifar-100-python, or a "
        reason = "contains none of them" if data == str(tmp_path) else "is neither a name nor a folder"
        with pytest.raises(DataError, match=f"{expected}.*got {re.escape(data)}, which {reason}$"):
            load(data)


def test_the_sample_is_no_training_set():
    expected = "data: expected cifar10, cifar100, .* got sample, which has test images only; use cifar10 for training"
    with pytest.raises(DataError, match=expected):
        load_training("sample")


def test_a_folder_with_both(tmp_path, write_cifar):
    for name in FOLDERS:
        write_cifar(tmp_path, name)
    with pytest.raises(
        DataError, match=r"data: expected one data set in .*, found both; pass the folder of one of them"
    ):
        load_images(str(tmp_path))
    for name, folder in FOLDERS.items():
        assert load_images(str(tmp_path / folder)).name == f"{name} test"


def test_a_name_without_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SMOOTHED_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match=r"cifar100: expected the folder cifar-100-python in .*smoothed download cifar100"
    ):
        load_images("cifar100")


def test_an_unknown_split():
    with pytest.raises(ArgumentError, match="split: expected one of test, validation, train, got 'val'"):
        load_images("sample", "val")


@pytest.fixture
def flowers(tmp_path, write_folder):
    write_folder(
        tmp_path / "flowers", {f"{split}/{name}": 5 for split in ("train", "test") for name in ("iris", "rose")}
    )
    return tmp_path / "flowers"


@pytest.mark.parametrize(("suffix", "size"), [("", 224), ("@64", 64), ("@1", 1), ("@4096", 4096)])
def test_a_folder_per_class_and_its_image_size(flowers, suffix, size):
    found = load_images(f"imagefolder:{flowers}{suffix}")
    assert (found.name, found.classes, len(found)) == ("flowers test", ("iris", "rose"), 10)
    assert found.image_size == size


def test_a_folder_per_class_by_a_relative_path_and_under_home(flowers, monkeypatch):
    monkeypatch.setenv("HOME", str(flowers.parent))
    monkeypatch.chdir(flowers)
    for path in ("~/flowers", ".", "../flowers/"):
        assert load_images(f"imagefolder:{path}@8").name == "flowers test"


def test_a_path_with_an_at_sign(flowers):
    folder = flowers.rename(flowers.parent / "me@home")
    assert load_images(f"imagefolder:{folder}@48").image_size == 48
    assert load_images(f"imagefolder:{folder}/").image_size == 224
    inner = folder.rename(flowers).rename(flowers.parent / "set")
    (flowers.parent / "a@b").mkdir()
    inner = inner.rename(flowers.parent / "a@b" / "set")
    assert load_images(f"imagefolder:{inner}").image_size == 224
    assert load_images(f"imagefolder:{inner}@48").image_size == 48


def test_the_training_part_of_a_folder_is_called_as_it_was_given(flowers):
    data = f"imagefolder:{flowers}@32"
    name, train, validation = load_training(data)
    assert name == data
    assert (train.name, validation.name) == ("flowers train", "flowers validation")
    assert (len(train), len(validation)) == (9, 1)
    assert (train.image_size, validation.image_size) == (32, 32)
    assert load_images(data, "train").files == train.files
    assert load_images(data, "validation").files == validation.files


@pytest.mark.parametrize("load", [load_images, load_training])
@pytest.mark.parametrize("wrong", ["@0", "@-1", "@1.5", "@", "@large", "@4097", "@ 8", "@99999999999", "@\u0663"])
def test_an_image_size_that_is_none(flowers, load, wrong):
    expected = r"data: expected imagefolder:PATH or imagefolder:PATH@SIZE with a SIZE in 1\.\.4096 pixels, got "
    with pytest.raises(DataError, match=expected + re.escape(f"imagefolder:{flowers}{wrong}")):
        load(f"imagefolder:{flowers}{wrong}")


@pytest.mark.parametrize("data", ["imagefolder:", "imagefolder:@64"])
def test_no_path(data):
    with pytest.raises(DataError, match=f"data: expected imagefolder:PATH .*got {data}$"):
        load_images(data)


def test_a_folder_per_class_needs_no_prefix(flowers, monkeypatch):
    monkeypatch.setenv("HOME", str(flowers.parent))
    monkeypatch.chdir(flowers)
    for path, size in ((str(flowers), 224), ("~/flowers", 224), (".", 224), (f"{flowers}@32", 32), ("~/flowers@8", 8)):
        found = load_images(path)
        assert (found.name, found.image_size, len(found)) == ("flowers test", size, 10)
    assert load_training(str(flowers))[0] == f"imagefolder:{flowers}"
    assert load_training(f"{flowers}@32")[0] == f"imagefolder:{flowers}@32"
    (flowers / "test").rename(flowers.parent / "only")
    assert load_images(str(flowers.parent / "only"), "train").classes == ("iris", "rose")


def test_a_folder_without_prefix_whose_name_has_an_at_sign(flowers):
    folder = flowers.rename(flowers.parent / "me@48")
    assert load_images(str(folder)).image_size == 224
    name, train, _ = load_training(str(folder))
    assert name == f"imagefolder:{folder}@224"
    assert train.image_size == 224
