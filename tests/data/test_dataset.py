"""Data sets and loaders: what is read and when, labels, augmentation, workers, and errors that come late."""

import gc
import multiprocessing
import random
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from own_data import (
    BYTES,
    COUNT,
    LABELS,
    NAMES,
    FaceLike,
    Items,
    N,
    Stream,
    T,
    concatenated,
    pil_rows,
    tensor_item,
    zeros,
)
from smoothed.data.adapt import as_images
from smoothed.errors import ArgumentError

# A machine with one CPU is warned of two workers; Python 3.12 warns of forks beside torch's threads.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    gc.collect()  # an exception from a worker and the frames that it passed refer to each other
    assert multiprocessing.active_children() == []


def test_only_the_asked_images_are_read():
    data = Items(lambda i: tensor_item(i % COUNT), count=10**6)
    images = as_images(data)
    assert len(data.read) < 10
    data.read.clear()
    list(images.subset(torch.tensor([40, 7])).batches(9))
    list(images.first(3).load([torch.tensor([2])]))
    assert data.read == [40, 7, 2]
    assert images.subset(slice(7, 8)).labels.tolist() == [LABELS[7]]
    assert data.read == [40, 7, 2]
    assert images.subset(slice(7, 10)).labels.tolist() == LABELS[7:10]
    assert data.read == [40, 7, 2, 8, 9]


STATED = {
    "targets": lambda: Items(tensor_item, targets=LABELS),
    "a tensor": lambda: Items(tensor_item, targets=torch.tensor(LABELS), target_transform=None),
    "labels": lambda: Items(tensor_item, labels=N.astype(np.uint8)),
    "of dicts": lambda: Items(lambda i: dict(zip(("image", "label"), tensor_item(i), strict=True)), targets=LABELS),
    "through wrappers": lambda: ConcatDataset(
        [Subset(Items(tensor_item, targets=N), range(30)), Subset(Items(tensor_item, labels=N), range(30, COUNT))]
    ),
    "of a loader": lambda: DataLoader(Items(tensor_item, targets=LABELS)),
}


def innermost(data):
    while not hasattr(data, "read"):
        data = data.datasets[0] if hasattr(data, "datasets") else data.dataset
    return data


@pytest.mark.parametrize("case", STATED)
def test_stated_labels_are_taken_without_reading_images(case):
    data = STATED[case]()
    images = as_images(data)
    innermost(data).read.clear()
    assert images.labels.tolist() == LABELS
    assert images.classes == ("0", "1", "2", "3")
    assert innermost(data).read == []


UNSURE = {
    "transformed": {"targets": [1] * COUNT, "target_transform": lambda label: label},
    "transformed together": {"targets": [1] * COUNT, "transforms": lambda image, label: (image, label)},
    "of another length": {"targets": LABELS[1:]},
    "of other values": {"targets": [label + 1 for label in LABELS]},
    "floats": {"targets": np.array(LABELS, float)},
    "of two columns": {"targets": np.stack([N, N], 1)},
    "a dict": {"labels": dict(enumerate(LABELS))},
    "ragged": {"labels": [[1], [1, 2]]},
}


@pytest.mark.parametrize("case", UNSURE)
def test_labels_are_read_once_where_the_stated_ones_may_differ(case):
    data = Items(tensor_item, **UNSURE[case])
    images = as_images(data)
    assert images.labels.tolist() == LABELS
    assert sorted(set(data.read)) == list(range(COUNT))
    data.read.clear()
    assert images.labels.tolist() == LABELS
    assert data.read == []


def test_labels_with_a_format_of_the_users_own_are_read():
    class Shifted(FaceLike):
        def __getitem__(self, key):
            found = super().__getitem__(key)
            return found if isinstance(key, str) else {**found, "label": LABELS[key]}

    rows = [(image, 0) for image, _ in pil_rows()]
    assert as_images(Shifted(rows, NAMES, format_type="custom")).labels.tolist() == LABELS


def test_a_stated_label_that_differs_late_is_an_error():
    stated = [*LABELS[:20], (LABELS[20] + 1) % 4, *LABELS[21:]]
    images = as_images(Items(tensor_item, targets=stated))
    with pytest.raises(
        ArgumentError, match=r"data: expected one label per image, got 3 and then 2 for image 20; .*targets"
    ):
        list(images.batches(32))


def noisy_item(i):
    """An image that all three global generators augment, as transforms do."""
    shift = int(torch.randint(100, ())) + np.random.randint(100) + random.randrange(55)  # noqa: S311
    return torch.full((1, 2, 2), shift, dtype=torch.uint8), i % 2


def three_states():
    return torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_is_a_function_of_seed_and_index(workers):
    before = three_states()
    images = as_images(DataLoader(Items(noisy_item, count=80), batch_size=3, shuffle=True, num_workers=workers))
    whole = concatenated(images.batches(80))[0]
    assert three_states() == before
    assert len(whole.unique()) > 30
    assert torch.equal(concatenated(images.batches(7))[0], whole)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    assert torch.equal(concatenated(images.subset(order).batches(33))[0], whole[order])
    assert torch.equal(as_images(Items(noisy_item, count=80)).batches(80).__next__()[0], whole)
    first, again, other = (concatenated(images.load(order.split(19), seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first != whole[order]).any()
    assert three_states() == before


def test_a_stream_is_copied_once_the_same_each_time_and_the_generators_are_not_touched():
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(Stream(noisy_item), batch_size=4, generator=generator)
    before = three_states(), generator.get_state().tolist()
    one, two = (as_images(loader, count=10) for _ in range(2))
    assert (three_states(), generator.get_state().tolist()) == before
    assert len(one) == 10
    assert torch.equal(concatenated(one.batches(4))[0], concatenated(two.batches(10))[0])


def test_augmentation_from_a_generator_of_its_own_is_noticed():
    own = np.random.default_rng(0)
    with pytest.raises(ArgumentError, match="data: expected the same image 0 each time it is read, got another at the"):
        as_images(Items(lambda i: (torch.full((1, 9, 9), 0 * i + own.random()), 0)))


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (torch.utils.data.SubsetRandomSampler([9, 3, 5]), [3, 5, 9]),
        ([9, 3, 3], [3, 9]),
        (torch.tensor([8, 2]), [2, 8]),
        (torch.utils.data.RandomSampler(range(COUNT)), range(COUNT)),
        (torch.utils.data.WeightedRandomSampler([1.0] * COUNT, 5), range(COUNT)),
    ],
)
@pytest.mark.parametrize("as_batches", [False, True])
def test_samplers(sampler, expected, as_batches):
    data = TensorDataset(T(BYTES), torch.tensor(LABELS))
    options = (
        {"batch_sampler": torch.utils.data.BatchSampler(sampler, 2, False)} if as_batches else {"sampler": sampler}
    )
    images, labels = concatenated(as_images(DataLoader(data, **options)).load([torch.arange(len(expected))]))
    np.testing.assert_array_equal(images.numpy(), BYTES[list(expected)])
    assert labels.tolist() == [LABELS[i] for i in expected]


def start(worker):
    Items.started = worker  # in the worker


def started_item(i):
    return torch.full((1, 2, 2), Items.started + 1, dtype=torch.uint8), i % 2


def test_workers_start_with_the_users_function(monkeypatch):
    monkeypatch.setattr(Items, "started", -1, raising=False)
    loader = DataLoader(Items(started_item), num_workers=2, worker_init_fn=start)
    found = concatenated(as_images(loader).batches(COUNT))[0].mul(255).unique()
    assert set(found.tolist()) == {1.0, 2.0}


@pytest.mark.parametrize("end", ["close", "forget"])
def test_workers_end_with_an_iterator_that_is_not_used_up(end):
    iterator = as_images(DataLoader(Items(tensor_item), num_workers=2)).batches(9)
    next(iterator)
    assert len(multiprocessing.active_children()) == 2
    if end == "close":
        iterator.close()
    del iterator
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_late_errors_name_the_image(workers):
    def read(item, **attributes):
        images = as_images(DataLoader(Items(item, **attributes), num_workers=workers))
        with pytest.raises(ArgumentError) as error:
            list(images.batches(32))
        return str(error.value)

    other = read(lambda i: (zeros(3, 8, 8 - (i > 20 and i % 4 == 3)), 0))
    assert re.search(r"one shape, \(3, 8, 8\) as in image 0, got \(3, 8, 7\) in image 23; resize and crop", other)
    grey = read(lambda i: (Image.new("L" if i == 41 else "RGB", (4, 4)), 0))
    assert re.search(r"one shape, .* got \(1, 4, 4\) in image 41; .*convert all to RGB", grey)
    assert "got torch.float32 in image 41" in read(
        lambda i: (zeros(1, 2, 2, dtype=None if i == 41 else torch.uint8), 0)
    )
    assert "got values in [0, 3] in image 22" in read(lambda i: (torch.eye(3)[None] * (3 if i == 22 else 1), 0))
    assert "got NaN in image 22" in read(lambda i: (torch.eye(3)[None] * (np.nan if i == 22 else 1), 0))
    assert "labels of at least 0, got -1 in image 22" in read(lambda i: (zeros(1, 2, 2), -1 if i == 22 else 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_of_the_users_own_code_pass(workers):
    def item(i):
        if i == 40:
            raise KeyError("mine")
        return tensor_item(i)

    images = as_images(DataLoader(Items(item), num_workers=workers))
    with pytest.raises(KeyError, match="mine"):
        list(images.batches(8))
    assert multiprocessing.active_children() == []  # at once, while the exception lives
