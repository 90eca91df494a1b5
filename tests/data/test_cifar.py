"""CIFAR's folders, small copies of them and the whole."""

from pathlib import Path

import numpy as np
import pytest
import torch

from smoothed.data.cifar import CIFARS, data_root, load_cifar
from smoothed.errors import ArgumentError, DataError

NAMES = ["cifar10", "cifar100"]


def part(name, count=4, **changes):
    """The content of one file, before or after damage."""
    content = {b"data": np.zeros((count, 3072), np.uint8), CIFARS[name].label_key: [0] * count}
    content.update({key.encode(): value for key, value in changes.items()})
    return content


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_reads_the_official_layout(tmp_path, write_cifar, name, split):
    images, labels = write_cifar(tmp_path, name)
    found = load_cifar(name, split, tmp_path)
    assert found.name == f"{name} {split}"
    assert found.images.dtype == torch.uint8
    assert found.labels.dtype == torch.int64
    np.testing.assert_array_equal(found.images.numpy(), images[split])
    assert found.labels.tolist() == labels[split]
    assert len(found.classes) == int(name.removeprefix("cifar"))
    assert found.classes[3] == "class 3"


def test_the_test_split_is_the_default(tmp_path, write_cifar):
    write_cifar(tmp_path, "cifar10")
    assert load_cifar("cifar10", root=str(tmp_path)).name == "cifar10 test"


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_itself_may_be_given(tmp_path, write_cifar, name, monkeypatch):
    write_cifar(tmp_path, name)
    folder = tmp_path / CIFARS[name].folder
    assert len(load_cifar(name, "test", folder)) == 4
    monkeypatch.chdir(folder)
    assert len(load_cifar(name, "test", ".")) == 4
    monkeypatch.chdir(tmp_path)
    assert len(load_cifar(name, "test", ".")) == 4


def test_the_variable_names_the_folder(tmp_path, write_cifar, monkeypatch):
    write_cifar(tmp_path, "cifar10")
    monkeypatch.setenv("SMOOTHED_DATA", str(tmp_path))
    assert len(load_cifar("cifar10")) == 4
    monkeypatch.setenv("SMOOTHED_DATA", str(tmp_path / "cifar-10-batches-py"))
    assert len(load_cifar("cifar10")) == 4


def test_where_data_lives(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for unset in ("", None):
        monkeypatch.setenv("SMOOTHED_DATA", unset) if unset is not None else monkeypatch.delenv("SMOOTHED_DATA")
        assert data_root() == tmp_path / ".cache" / "smoothed"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_root() == tmp_path / "cache" / "smoothed"
    monkeypatch.setenv("SMOOTHED_DATA", "~/sets")
    assert data_root() == tmp_path / "sets"
    assert data_root("~/mine") == tmp_path / "mine"
    assert data_root(Path("/elsewhere")) == Path("/elsewhere")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_folder(tmp_path, name):
    folder = CIFARS[name].folder
    with pytest.raises(DataError, match=rf"{name}: expected the folder {folder} in .*; run `smoothed download {name}`"):
        load_cifar(name, "test", tmp_path)


@pytest.mark.parametrize("file", ["data_batch_3", "batches.meta"])
def test_a_missing_file(tmp_path, write_cifar, file):
    write_cifar(tmp_path, "cifar10")
    (tmp_path / "cifar-10-batches-py" / file).unlink()
    with pytest.raises(DataError, match=f"{file}: expected a file of CIFAR's Python version, found none"):
        load_cifar("cifar10", "train", tmp_path)


@pytest.mark.parametrize("file", ["data_batch_3", "batches.meta"])
def test_a_truncated_file(tmp_path, write_cifar, file):
    write_cifar(tmp_path, "cifar10")
    path = tmp_path / "cifar-10-batches-py" / file
    content = path.read_bytes()
    for end in range(0, len(content), len(content) // 25):
        path.write_bytes(content[:end])
        with pytest.raises(DataError, match=f"{file}: truncated or damaged"):
            load_cifar("cifar10", "train", tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("data", "got"),
    [
        (np.zeros((4, 3071), np.uint8), r"uint8 \(4, 3071\)"),
        (np.zeros((4, 3, 32, 32), np.uint8), r"uint8 \(4, 3, 32, 32\)"),
        (np.zeros(3072, np.uint8), r"uint8 \(3072,\)"),
        ([[0] * 3072] * 4, "list"),
        (None, "NoneType"),
    ],
)
def test_data_of_another_shape(tmp_path, write_cifar, dump_python2, name, data, got):
    write_cifar(tmp_path, name)
    dump_python2(tmp_path / CIFARS[name].folder / CIFARS[name].files["test"][0], part(name, data=data))
    with pytest.raises(DataError, match=rf"expected uint8 data of shape \(N, 3072\), got {got}; .* not a {name} file"):
        load_cifar(name, "test", tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "int8", "int64"])
def test_data_of_another_dtype(tmp_path, write_cifar, dump_python2, dtype):
    write_cifar(tmp_path, "cifar10")
    data = np.zeros((4, 3072), dtype)
    dump_python2(tmp_path / "cifar-10-batches-py" / "test_batch", part("cifar10", data=data))
    with pytest.raises(DataError, match=r"test_batch: expected .*uint8"):
        load_cifar("cifar10", "test", tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("labels", "got"), [([0] * 3, "3"), ([0] * 5, "5"), ([], "0"), (None, "none"), ((0,) * 4, "none")]
)
def test_labels_of_another_number(tmp_path, write_cifar, dump_python2, name, labels, got):
    write_cifar(tmp_path, name)
    key = CIFARS[name].label_key.decode()
    dump_python2(tmp_path / CIFARS[name].folder / CIFARS[name].files["test"][0], part(name, **{key: labels}))
    with pytest.raises(DataError, match=f"expected 4 {key}, got {got}; the file is damaged"):
        load_cifar(name, "test", tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [-1, "K", 2**70, 1.5, 1.0, True, b"1", "1", None, [0]])
def test_a_label_that_is_no_class(tmp_path, write_cifar, dump_python2, name, wrong):
    write_cifar(tmp_path, name)
    cifar = CIFARS[name]
    labels = [0, cifar.num_classes if wrong == "K" else wrong, 1, 2]
    content = part(name, **{cifar.label_key.decode(): labels})
    dump_python2(tmp_path / cifar.folder / cifar.files["test"][0], content)
    with pytest.raises(
        DataError, match=rf"expected integer labels in 0\.\.{cifar.num_classes - 1}; the file is damaged"
    ):
        load_cifar(name, "test", tmp_path)


@pytest.mark.parametrize("names", [[b"a"] * 9, None, b"abcdefghij"])
def test_class_names_of_another_number(tmp_path, write_cifar, dump_python2, names):
    write_cifar(tmp_path, "cifar10")
    dump_python2(tmp_path / "cifar-10-batches-py" / "batches.meta", {b"label_names": names})
    with pytest.raises(DataError, match=r"batches\.meta: expected 10 class names; the file is damaged"):
        load_cifar("cifar10", "test", tmp_path)


def test_cifar100_in_place_of_cifar10(tmp_path, write_cifar):
    write_cifar(tmp_path, "cifar100")
    (tmp_path / "cifar-100-python").rename(tmp_path / "cifar-10-batches-py")
    with pytest.raises(DataError, match="test_batch: expected a file of CIFAR's Python version, found none"):
        load_cifar("cifar10", "test", tmp_path)


def test_unknown_names(tmp_path):
    with pytest.raises(ArgumentError, match="name: expected one of cifar10, cifar100, got 'mnist'"):
        load_cifar("mnist", "test", tmp_path)
    with pytest.raises(ArgumentError, match="split: expected one of train, test, got 'validation'"):
        load_cifar("cifar10", "validation", tmp_path)


@pytest.mark.slow
def test_the_full_cifar10_has_the_published_statistics(full_data):
    train, test = (load_cifar("cifar10", split, full_data) for split in ("train", "test"))
    assert train.images.shape == (50_000, 3, 32, 32)
    assert test.images.shape == (10_000, 3, 32, 32)
    assert train.labels.bincount().tolist() == [5000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    assert train.classes[:3] == ("airplane", "automobile", "bird")
    # From counts of the 256 values, exactly.
    values = np.arange(256) / 255
    for channel, (mean, deviation) in enumerate([(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)]):
        shares = np.bincount(train.images[:, channel].numpy().ravel(), minlength=256) / (50_000 * 1024)
        assert shares @ values == pytest.approx(mean, abs=1e-4)
        assert (shares @ values**2 - (shares @ values) ** 2) ** 0.5 == pytest.approx(deviation, abs=1e-4)
