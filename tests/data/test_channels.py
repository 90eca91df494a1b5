"""Channel statistics against numpy's, over all pixels at once."""

import numpy as np
import pytest
import torch

from smoothed.data.channels import channel_statistics
from smoothed.data.folder import FolderSet
from smoothed.data.imageset import ImageSet
from smoothed.errors import ArgumentError, DataError


def random_set(count, channels=3, name="some train"):
    pixels = torch.randint(256, (count, channels, 5, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.zeros(count, dtype=torch.int64)
    return ImageSet(name, pixels, labels, ("a",))


@pytest.mark.parametrize(("size", "count"), [(7, 1000), (7, 7), (120, 120), (130, 13), (125, 60), (10, 3)])
def test_are_those_of_evenly_spaced_images(size, count):
    images = random_set(size)
    used = min(size, count)
    places = [i * size // used for i in range(used)]
    assert len(set(places)) == used
    pixels = images.images.numpy()[places].transpose(1, 0, 2, 3).reshape(3, -1) / 255
    mean, std = channel_statistics(images, count)
    assert mean == pytest.approx(pixels.mean(1), abs=1e-12)
    assert std == pytest.approx(pixels.std(1), abs=1e-12)
    assert all(type(value) is float for value in (*mean, *std))


def test_of_files_at_the_size_of_the_set(tmp_path, write_image):
    files = tuple(str(tmp_path / f"{i}.png") for i in range(5))
    pixels = np.stack([np.array(write_image(tmp_path / f"{i}.png", 8, 8, i)) for i in range(5)]) / 255
    images = FolderSet("some", files, torch.zeros(5, dtype=torch.int64), ("a",), image_size=8, workers=0)
    mean, std = channel_statistics(images)
    assert mean == pytest.approx(pixels.mean((0, 1, 2)), abs=1e-12)
    assert std == pytest.approx(pixels.std((0, 1, 2)), abs=1e-12)


@pytest.mark.parametrize("value", [0, 37, 255])
def test_of_a_constant(value):
    images = ImageSet("some", torch.full((4, 3, 2, 2), value, dtype=torch.uint8), torch.zeros(4).long(), ("a",))
    assert channel_statistics(images) == ((pytest.approx(value / 255),) * 3, (0.0,) * 3)


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_of_any_number_of_channels_and_of_floats(channels, dtype):
    images = random_set(60, channels).images
    images = images if dtype == torch.uint8 else images.to(dtype) / 255
    before = images.clone()
    mean, std = channel_statistics(ImageSet("some", images, torch.zeros(60).long(), ("a",)))
    pixels = images.numpy().astype(np.float64).transpose(1, 0, 2, 3).reshape(channels, -1)
    pixels = pixels / 255 if dtype == torch.uint8 else pixels
    assert mean == pytest.approx(pixels.mean(1), abs=1e-12)
    assert std == pytest.approx(pixels.std(1), abs=1e-12)
    assert torch.equal(images, before)


def test_of_floats_that_hardly_differ():
    images = torch.full((4, 1, 2, 2), 0.1)
    images[0, 0, 0, 0] += 1e-6
    for floats in (images, images * 0 + 0.1):
        _, (std,) = channel_statistics(ImageSet("some", floats, torch.zeros(4).long(), ("a",)))
        assert std == pytest.approx(floats.double().std(correction=0).item(), rel=1e-9, abs=0)


def test_of_none():
    with pytest.raises(DataError, match="some train: expected at least one image, got none"):
        channel_statistics(random_set(0))
    with pytest.raises(ArgumentError, match="count: expected an integer of at least 1, got 0"):
        channel_statistics(random_set(3), 0)
