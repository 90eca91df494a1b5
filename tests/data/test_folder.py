"""Sets of image files: streamed by workers, the same whatever their number, and gone when they are no longer needed."""

import dataclasses
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from smoothed.data.decode import read_image
from smoothed.data.folder import FolderSet, default_workers
from smoothed.data.imageset import ImageSet
from smoothed.errors import ArgumentError, DataError
from smoothed.rng.seeds import mix

# A machine with one CPU is warned of two workers; Python 3.12 warns of forks beside torch's threads.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

COUNT = 11
SIZE = 8
LABELS = [0, 1, 2, 0, 1, 2, 2, 0, 1, 1, 0]


@pytest.fixture
def files(tmp_path, write_image):
    for i in range(COUNT):
        write_image(tmp_path / f"{i:02}.png", 10 + 3 * (i % 3), 9 + 4 * (i % 4), i)
    return tuple(str(tmp_path / f"{i:02}.png") for i in range(COUNT))


@pytest.fixture
def make(files):
    def make(workers=0, **options):
        options = {"image_size": SIZE, **options}
        return FolderSet("some test", files, torch.tensor(LABELS), ("a", "b", "c"), workers=workers, **options)

    return make


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    assert multiprocessing.active_children() == []


def in_memory(files, seeds=None):
    """The same images without loader or workers."""
    pixels = [read_image(file, SIZE, None if seeds is None else seeds[i]) for i, file in enumerate(files)]
    return ImageSet("some test", torch.stack(pixels), torch.tensor(LABELS), ("a", "b", "c"))


def concatenated(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def index(*batches):
    return [torch.tensor(batch, dtype=torch.int64) for batch in batches]


def test_is_a_value_that_does_not_print_its_files(make):
    images = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        images.name = "other"
    assert len(images) == COUNT
    assert "some test" in repr(images)
    assert ".png" not in repr(images)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 4, 11, 100])
def test_batches_are_all_images_in_order(make, files, workers, size):
    expected = in_memory(files)
    batches = list(make(workers).batches(size))
    assert [len(labels) for _, labels in batches] == [min(size, COUNT - start) for start in range(0, COUNT, size)]
    images, labels = concatenated(batches)
    assert images.dtype == torch.float32
    np.testing.assert_array_equal(images.numpy(), expected.images.numpy().astype(np.float32) / np.float32(255))
    assert labels.tolist() == LABELS


@pytest.mark.parametrize("workers", [0, 2])
def test_load_gives_each_batch_in_its_own_order(make, files, workers):
    expected = in_memory(files)
    batches = index([5, 0, 5], [], [10], [3, 2, 1, 9])
    loaded = list(make(workers).load(batches))
    for (images, labels), (theirs, their_labels) in zip(loaded, expected.load(batches), strict=True):
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert torch.equal(images, theirs)
        assert torch.equal(labels, their_labels)


def test_no_batches(make):
    assert list(make(2).load([])) == []


def test_random_parts_are_a_function_of_seed_and_place_alone(make, files):
    expected = in_memory(files, [mix(7, place) for place in range(COUNT)]).images
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    for workers in (0, 2):
        for size in (1, 3, COUNT):
            images, labels = concatenated(make(workers).load(order.split(size), 7))
            assert torch.equal(images, expected[order])
            assert labels.tolist() == [LABELS[i] for i in order]


def test_another_seed_another_place_another_part(make):
    images = make()
    first, again, other, central = (concatenated(images.load(index([0, 1, 2, 3]), seed))[0] for seed in (1, 1, 2, None))
    assert torch.equal(first, again)
    assert all(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(first, central, strict=True))
    twice = images.subset(torch.tensor([4, 4]))
    one, two = concatenated(twice.load(index([0, 1]), 1))[0]
    assert not torch.equal(one, two)


def test_a_large_seed(make):
    images, _ = concatenated(make().load(index([0]), 2**63 - 1))
    assert images.shape == (1, 3, SIZE, SIZE)


@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_own_generator_is_not_touched(make, workers):
    before, images = torch.random.get_rng_state(), make(workers)
    list(images.batches(4))
    list(images.load(index([0], [1]), 3))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_subset_by_index_mask_and_slice(make, files):
    images, expected = make(), in_memory(files)
    for chosen in (
        torch.tensor([4, 0, 4]),
        torch.tensor(LABELS) == 2,
        slice(2, 5),
        torch.tensor([], dtype=torch.int64),
    ):
        part, theirs = images.subset(chosen, "part"), expected.subset(chosen)
        assert (part.name, part.classes, part.image_size, part.workers) == ("part", images.classes, SIZE, 0)
        assert part.labels.tolist() == theirs.labels.tolist()
        assert torch.equal(concatenated(part.load([torch.arange(len(part))]))[0], theirs.images)
    assert images.subset(slice(3)).name == "some test"
    assert len(images) == COUNT


def test_first(make, files):
    images = make()
    assert images.first(None) is images
    assert images.first(2).files == files[:2]
    assert images.first(COUNT).files == files
    for count in (0, -1, COUNT + 1):
        with pytest.raises(DataError, match=rf"images: expected 1 to {COUNT} \(the size of some test\), got {count}"):
            images.first(count)


@pytest.mark.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu", "meta"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_out_on_the_device(make, device, workers):
    images = make(workers).to(device)
    assert images.labels.device.type == "cpu"
    for pixels, labels in (*images.batches(8), *images.load(index([1, 2]), 1)):
        assert pixels.device.type == labels.device.type == device
    assert images.subset(slice(2)).device == torch.device(device)
    assert make().device == torch.device("cpu")


def test_one_worker_a_batch_at_most_and_all_end_with_the_last_batch(make):
    for workers, batches, expected in ((2, 5, 2), (4, 3, 3), (4, 1, 1), (0, 5, 0)):
        loaded = make(workers).load(index(*([i] for i in range(batches))))
        next(loaded)
        assert len(multiprocessing.active_children()) == expected
        assert len(list(loaded)) == batches - 1
        assert multiprocessing.active_children() == []


@pytest.mark.parametrize("method", ["load", "batches"])
@pytest.mark.parametrize("end", ["close", "forget", "throw"])
def test_workers_end_with_an_iterator_that_is_not_used_up(make, method, end):
    images = make(2)
    iterator = images.batches(2) if method == "batches" else images.load(index([0], [1], [2], [3], [4], [5]))
    next(iterator)
    assert len(multiprocessing.active_children()) == 2
    if end == "close":
        iterator.close()
    elif end == "throw":
        with pytest.raises(KeyError):
            iterator.throw(KeyError())
    else:
        del iterator
    assert multiprocessing.active_children() == []


def test_workers_leave_an_interrupt_to_the_main_process(make, files):
    iterator = make(2).load([batch for _ in range(6) for batch in index([0, 1, 2], [3, 4])])
    got = [next(iterator), next(iterator)]  # one of each worker: both have begun
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGINT)
    got += list(iterator)
    assert len(got) == 12
    assert torch.equal(got[-1][0], in_memory(files).images[[3, 4]])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["truncated", "missing", "text"])
def test_a_damaged_file_is_named_in_one_line_wherever_it_is_read(make, files, workers, damage):
    path = Path(files[6])
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"text")
    got = []
    with pytest.raises(
        DataError, match=r"06\.png: could not be read as an image \(.+\); repair or remove it$"
    ) as error:
        got.extend(labels for _, labels in make(workers).batches(2))
    assert torch.cat(got).tolist() == LABELS[:6]
    assert "\n" not in str(error.value)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("size", [0, -1, 4097, 1.5, "8", None, True])
def test_an_image_size_that_is_none(make, size):
    with pytest.raises(ArgumentError, match=r"image_size: expected an integer in 1\.\.4096 \(pixels\), got"):
        make(image_size=size)


@pytest.mark.parametrize("workers", [-1, 1.5, None, True])
def test_a_number_of_workers_that_is_none(make, workers):
    with pytest.raises(ArgumentError, match="workers: expected an integer of at least 0, got"):
        make(workers=workers)


def test_labels_that_do_not_fit(files):
    with pytest.raises(DataError, match="some: expected one label per image, got 11 images and 10 labels"):
        FolderSet("some", files, torch.tensor(LABELS[1:]), ("a", "b", "c"))
    with pytest.raises(DataError, match=r"some: expected labels in 0\.\.1, got 2"):
        FolderSet("some", files, torch.tensor(LABELS), ("a", "b"))


def test_the_default_number_of_workers(monkeypatch):
    assert 1 <= default_workers() <= 4
    for cpus, expected in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cpus=cpus: set(range(cpus)), raising=False)
        assert default_workers() == expected
    monkeypatch.delattr(os, "sched_getaffinity")
    for cpus, expected in ((None, 1), (2, 2), (64, 4)):
        monkeypatch.setattr(os, "cpu_count", lambda cpus=cpus: cpus)
        assert default_workers() == expected
