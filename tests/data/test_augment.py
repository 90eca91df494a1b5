"""Crop and flip against a slow version, and against the distribution that they promise."""

import pytest
import torch

from smoothed.data.augment import PADDING, augment, draw_augmentation


def numbered(count, height, width):
    """Images whose pixels all differ and are not 0, so that a crop shows where it was taken."""
    return torch.arange(1.0, 1 + count * 2 * height * width).view(count, 2, height, width)


def crop(image, top, left, flip, padding):
    """One crop, pixel by pixel: zeros where the window leaves the image."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            y, x = row + top - padding, column + left - padding
            if 0 <= y < height and 0 <= x < width:
                result[:, row, width - 1 - column if flip else column] = image[:, y, x]
    assert channels == len(result)
    return result


def offsets(images, cropped, padding):
    """(top, left, flip) of each crop, read off where one of its pixels came from."""
    found = []
    height, width = images.shape[2:]
    for image, result in zip(images, cropped, strict=True):
        row, column = (int(i) for i in result[0].nonzero()[len(result[0].nonzero()) // 2])
        y, x = (int(i) for i in (image[0] == result[0, row, column]).nonzero()[0])
        inside = result[0] > 0
        rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
        values = result[0, int(rows[0]), columns.flatten()]
        flip = bool(values[0] > values[-1])
        column = width - 1 - column if flip else column
        found.append((y - row + padding, x - column + padding, flip))
        assert height == len(result[0])
    return found


@pytest.mark.parametrize(("height", "width", "padding"), [(8, 8, 2), (6, 9, 2), (9, 6, 4), (5, 7, 0)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_is_a_crop_of_the_padded_image_pixel_by_pixel(height, width, padding, dtype, generator):
    images = numbered(16, height, width)
    stored = images.remainder(251).add(1).to(dtype)
    got = augment(stored, generator, padding)
    assert got.shape == stored.shape
    assert got.dtype == dtype

    where = offsets(images, augment(images, generator.manual_seed(0), padding), padding)
    expected = [crop(image, *place, padding) for image, place in zip(stored, where, strict=True)]
    assert torch.equal(got, torch.stack(expected))


def test_places_and_flips_are_uniform_and_independent(generator):
    count = 40_500
    images = numbered(1, 6, 6).expand(count, -1, -1, -1)
    got = augment(images, generator, 1)
    kinds = {
        (top, left, flip): crop(images[0], top, left, flip, 1)
        for top in range(3)
        for left in range(3)
        for flip in (False, True)
    }
    times = torch.tensor([(got == kind).flatten(1).all(1).sum() for kind in kinds.values()])
    assert times.sum() == count
    # Chi-square with 17 degrees of freedom: above 50 with probability 4e-5.
    expected = count / len(kinds)
    assert ((times - expected) ** 2 / expected).sum() < 50


def test_the_padding_is_the_usual_four(generator):
    assert PADDING == 4
    images = numbered(2000, 12, 12)
    where = offsets(images, augment(images, generator), 4)
    assert {top for top, _, _ in where} == {left for _, left, _ in where} == set(range(9))


def test_the_generator_decides(images):
    first, again, other = (augment(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_leaves_its_images_and_torchs_generator_alone(images, generator):
    copy, before = images.clone(), torch.random.get_rng_state()
    augment(images, generator)
    assert torch.equal(images, copy)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_batch_of_none(generator):
    assert augment(torch.zeros(0, 3, 8, 8), generator).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(("height", "width", "padding"), [(8, 8, 2), (6, 9, 2), (9, 6, 4), (5, 7, 0)])
def test_undo_puts_pixels_back_where_they_come_from(height, width, padding, generator):
    images, drawn = numbered(16, height, width), draw_augmentation(generator, 16, padding)
    augmented = -drawn.apply(images)
    restored = drawn.undo(augmented, images)
    expected = images.clone()
    for image, top, left in zip(expected, drawn.tops.tolist(), drawn.lefts.tolist(), strict=True):
        rows = slice(max(0, top - padding), max(0, top - padding + height))
        columns = slice(max(0, left - padding), max(0, left - padding + width))
        image[:, rows, columns] *= -1
    assert torch.equal(restored, expected)
    assert torch.equal(drawn.apply(restored), augmented)


def test_some_rows_of_what_was_drawn(generator):
    images, drawn = numbered(10, 6, 6), draw_augmentation(generator, 10)
    assert torch.equal(drawn.rows(slice(3, 7)).apply(images[3:7]), drawn.apply(images)[3:7])
