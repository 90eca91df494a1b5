"""Image sets against plain indexing."""

import dataclasses

import numpy as np
import pytest
import torch

from smoothed.data.imageset import ImageSet, to_float
from smoothed.errors import DataError


@pytest.fixture
def pixels(generator):
    return torch.randint(256, (7, 3, 4, 5), generator=generator, dtype=torch.uint8)


@pytest.fixture
def small(pixels):
    return ImageSet("small test", pixels, torch.tensor([0, 1, 2, 0, 1, 2, 2]), ("a", "b", "c"))


def test_length(small):
    assert len(small) == 7


def test_is_a_value(small):
    with pytest.raises(dataclasses.FrozenInstanceError):
        small.name = "other"


@pytest.mark.parametrize("index", [[4, 0, 4], [6]])
def test_subset_keeps_the_order_of_the_index(small, index):
    subset = small.subset(torch.tensor(index), "part")
    assert subset.name == "part"
    assert subset.classes == small.classes
    assert subset.labels.tolist() == [small.labels.tolist()[i] for i in index]
    assert all(torch.equal(image, small.images[i]) for image, i in zip(subset.images, index, strict=True))
    assert len(small) == 7


def test_subset_by_mask_and_slice(small):
    assert small.subset(small.labels == 2).labels.tolist() == [2, 2, 2]
    assert small.subset(slice(1, 3)).labels.tolist() == [1, 2]
    assert small.subset(slice(1, 3)).name == "small test"


def test_first(small):
    assert small.first(None) is small
    assert small.first(2).labels.tolist() == [0, 1]
    assert torch.equal(small.first(7).images, small.images)


@pytest.mark.parametrize("count", [0, -1, 8])
def test_first_names_its_limits(small, count):
    with pytest.raises(DataError, match=rf"images: expected 1 to 7 \(the size of small test\), got {count}"):
        small.first(count)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_batches_are_all_images_in_order(small, pixels, size):
    batches = list(small.batches(size))
    assert [len(labels) for _, labels in batches] == [min(size, 7 - start) for start in range(0, 7, size)]
    expected = pixels.numpy().astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(torch.cat([images for images, _ in batches]).numpy(), expected)
    assert torch.cat([labels for _, labels in batches]).tolist() == small.labels.tolist()


@pytest.mark.parametrize("seed", [None, 3])
def test_load_is_plain_indexing_whatever_the_seed(small, pixels, seed):
    batches = [[5, 1], [], [6, 6, 0]]
    loaded = list(small.load([torch.tensor(batch, dtype=torch.int64) for batch in batches], seed))
    for batch, (images, labels) in zip(batches, loaded, strict=True):
        assert images.dtype == torch.uint8
        np.testing.assert_array_equal(images.numpy(), pixels.numpy()[batch])
        assert labels.tolist() == [small.labels.tolist()[i] for i in batch]


def test_to_float_maps_every_byte_to_its_nearest_float():
    every = torch.arange(256, dtype=torch.uint8)
    floats = to_float(every)
    assert floats.dtype == torch.float32
    assert floats.tolist() == [float(np.float32(value / 255)) for value in range(256)]
    assert every.tolist() == list(range(256))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_are_neither_scaled_nor_written_to(pixels, dtype):
    floats = (pixels / 255).to(dtype)
    before = floats.clone()
    assert torch.equal(to_float(floats), before.float())
    images = ImageSet("floats", floats, torch.zeros(7).long(), ("a",))
    for _ in range(2):
        assert torch.equal(torch.cat([batch for batch, _ in images.batches(3)]), before.float())
    assert torch.equal(next(images.load([torch.tensor([4, 1])]))[0], before[[4, 1]])
    assert torch.equal(floats, before)


def test_integers_of_other_types_are_refused(pixels):
    with pytest.raises(DataError, match=r"some: expected images of type uint8 or float, got torch\.int64"):
        ImageSet("some", pixels.long(), torch.zeros(7).long(), ("a",))


@pytest.mark.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def test_to_moves_both_tensors(small, device):
    moved = small.to(device)
    assert moved.device.type == moved.images.device.type == moved.labels.device.type == device
    assert torch.equal(moved.images.cpu(), small.images)


def test_a_label_short(pixels):
    with pytest.raises(DataError, match="small: expected one label per image, got 7 images and 6 labels"):
        ImageSet("small", pixels, torch.zeros(6, dtype=torch.int64), ("a",))


@pytest.mark.parametrize("wrong", [-1, 3, 255])
def test_a_label_out_of_range(pixels, wrong):
    labels = torch.tensor([0, 1, 2, wrong, 0, 1, 2])
    with pytest.raises(DataError, match=rf"small: expected labels in 0\.\.2, got {wrong}; the file is damaged"):
        ImageSet("small", pixels, labels, ("a", "b", "c"))


def test_an_empty_set():
    empty = ImageSet("empty", torch.zeros(0, 3, 2, 2, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), ("a",))
    assert len(empty) == 0
