"""Image files of every mode to pixels, against Pillow's own steps; random boxes against their distribution."""

import math
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from smoothed.data.decode import central_square, random_box, read_image
from smoothed.errors import DataError

# A known colour in each mode, and the RGB that it stands for.
COLOURS = {
    "1": (1, (255, 255, 255)),
    "L": (90, (90, 90, 90)),
    "LA": ((90, 10), (90, 90, 90)),
    "RGB": ((10, 20, 30), (10, 20, 30)),
    "RGBA": ((10, 20, 30, 0), (10, 20, 30)),
    "CMYK": ((255, 0, 0, 0), (0, 255, 255)),
    "I;16": (0x5A7F, (0x5A, 0x5A, 0x5A)),
}
FORMATS = {"1": "png", "L": "jpg", "LA": "png", "RGB": "webp", "RGBA": "png", "CMYK": "tif", "I;16": "png"}


def pixels_of(image):
    """(3, H, W) as integers."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("mode", COLOURS)
def test_a_colour_is_that_colour_in_every_mode(tmp_path, mode, seed):
    colour, rgb = COLOURS[mode]
    path = tmp_path / f"image.{FORMATS[mode]}"
    Image.new(mode, (13, 9), colour).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))
    got = read_image(str(path), 6, seed)
    assert got.dtype == torch.uint8
    assert got.shape == (3, 6, 6)
    assert got.flatten(1).unique(dim=1).flatten().tolist() == list(rgb)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "webp", "jpg"])
def test_every_format(tmp_path, write_image, suffix):
    image = write_image(tmp_path / f"image.{suffix}", 16, 16)
    off = (read_image(str(tmp_path / f"image.{suffix}"), 16).int() - pixels_of(image)).abs()
    assert off.float().mean() < (12 if suffix in {"webp", "jpg"} else 1e-9)


@pytest.mark.parametrize("transparency", [1, b"\x00\x80\xff"])
def test_a_palette_with_transparency(tmp_path, transparency):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 9, 9, 40, 50, 60, 7, 7, 7])
    image.save(tmp_path / "image.png", transparency=transparency)
    assert read_image(str(tmp_path / "image.png"), 4)[:, 0, 0].tolist() == [40, 50, 60]


@pytest.mark.parametrize(("width", "height"), [(24, 16), (16, 24), (20, 20), (8, 4), (4, 8), (8, 8), (12, 9)])
def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path, write_image, width, height):
    image, size = write_image(tmp_path / "image.png", width, height), 2 * min(width, height)
    wide, high = 2 * width, 2 * height  # so that nothing has to be rounded
    left, top = (wide - size) // 2, (high - size) // 2
    expected = image.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    assert torch.equal(read_image(str(tmp_path / "image.png"), size), pixels_of(expected))

    if width % 4 == height % 4 == 0:
        left, top, size = left // 4, top // 4, size // 4
        expected = image.resize((width // 2, height // 2), Image.Resampling.BILINEAR)
        expected = pixels_of(expected.crop((left, top, left + size, top + size)))
        # Half a level may be rounded the other way where Pillow filters less of the image.
        assert (read_image(str(tmp_path / "image.png"), size).int() - expected.int()).abs().max() <= 1


def write_gradient(path, width, height):
    """An image whose red grows to the right and whose green grows downwards: its pixels tell their place."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8)).save(path)


def assert_shows(pixels, box):
    """Check that `pixels` of a gradient are those of `box`, to what rounding leaves open."""
    left, top, right, bottom = box
    size = pixels.shape[1]
    places = (np.arange(size) + 0.5) / size
    red, green, _ = pixels.double().numpy()
    inside = slice(1, -1)  # the filter is cut off at the border of the image
    assert np.abs(red - (left - 0.5 + (right - left) * places))[:, inside].max() < 1.1
    assert np.abs(green.T - (top - 0.5 + (bottom - top) * places))[:, inside].max() < 1.1


@pytest.mark.parametrize(
    ("width", "height", "box"),
    [(133, 100, (16.5, 0, 116.5, 100)), (91, 240, (0, 74.5, 91, 165.5)), (77, 77, (0, 0, 77, 77))],
)
def test_the_centre_where_sides_are_no_multiples(tmp_path, width, height, box):
    write_gradient(tmp_path / "image.png", width, height)
    assert_shows(read_image(str(tmp_path / "image.png"), 32), box)


def test_an_image_of_the_size_asked_for_is_left_as_it_is(tmp_path, write_image):
    image = write_image(tmp_path / "image.png", 8, 8)
    assert torch.equal(read_image(str(tmp_path / "image.png"), 8), pixels_of(image))


def test_a_pixel_and_a_line_are_enough(tmp_path, write_image):
    for width, height in ((1, 1), (1, 3000), (3000, 1)):
        write_image(tmp_path / "image.png", width, height)
        for seed in (None, 0, 1):
            assert read_image(str(tmp_path / "image.png"), 5, seed).shape == (3, 5, 5)


def test_a_seed_takes_its_random_box(tmp_path):
    write_gradient(tmp_path / "image.png", 240, 200)
    for seed in range(8):
        box = random_box(240, 200, torch.Generator().manual_seed(seed))
        assert_shows(read_image(str(tmp_path / "image.png"), 32, seed), box)


@pytest.mark.parametrize(("width", "height"), [(4, 4), (7, 4), (4, 7), (5, 4), (1, 90)])
def test_the_central_square(width, height):
    left, top, right, bottom = central_square(width, height)
    assert right - left == bottom - top == min(width, height)
    assert (left, top) == (width - right, height - bottom)
    assert min(left, top) == 0


def boxes(width, height, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return np.array([random_box(width, height, generator) for _ in range(count)]).T


@pytest.mark.parametrize(("width", "height"), [(100, 100), (640, 480), (3, 4), (1, 1), (50, 75)])
def test_a_random_box_lies_inside_and_keeps_its_bounds(width, height):
    left, top, right, bottom = boxes(width, height, 400)
    assert min(left.min(), top.min()) >= 0
    assert right.max() <= width
    assert bottom.max() <= height
    share, ratio = (right - left) * (bottom - top) / (width * height), (right - left) / (bottom - top)
    assert share.min() > 0.35 - 1e-9
    assert share.max() < 1 + 1e-9
    assert ratio.min() > 3 / 4 - 1e-9
    assert ratio.max() < 4 / 3 + 1e-9


def test_random_boxes_are_distributed_as_they_should():
    # A slow version with rejection, in numpy and without a limit of attempts.
    width, height, count, rng = 120, 100, 4000, np.random.default_rng(1)
    expected = []
    while len(expected) < count:
        area, ratio = rng.uniform(0.35, 1) * width * height, math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            expected.append((left, top, left + w, top + h))
    expected, got = np.array(expected).T, boxes(width, height, count)
    for name in ("left", "top", "width", "height", "area"):
        samples = []
        for left, top, right, bottom in (expected, got):
            area = (right - left) * (bottom - top)
            samples.append(
                {"left": left, "top": top, "width": right - left, "height": bottom - top, "area": area}[name]
            )
        # Kolmogorov-Smirnov: above 0.046 with a probability of 4e-4 for each.
        both = np.sort(np.concatenate(samples))
        below = [np.searchsorted(np.sort(sample), both, side="right") / count for sample in samples]
        assert np.abs(below[0] - below[1]).max() < 0.046, name


@pytest.mark.parametrize(("width", "height"), [(1000, 10), (10, 1000)])
def test_a_narrow_image_gives_its_largest_centred_part(width, height):
    left, top, right, bottom = random_box(width, height, torch.Generator().manual_seed(0))
    long, short = max(right - left, bottom - top), min(right - left, bottom - top)
    assert (short, long) == (10, pytest.approx(40 / 3))
    assert (left, top) == (pytest.approx(width - right), pytest.approx(height - bottom))


def test_neither_torchs_nor_numpys_generator_is_touched(tmp_path, write_image):
    write_image(tmp_path / "image.png")
    before, numpys = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    read_image(str(tmp_path / "image.png"), 8, 5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpys).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "ppm", "tif"])
def test_a_truncated_file(tmp_path, write_image, suffix):
    path = tmp_path / f"image.{suffix}"
    write_image(path, 60, 50)
    content = path.read_bytes()
    for end in (0, 1, 10, len(content) // 2, len(content) * 3 // 4):
        path.write_bytes(content[:end])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of some before it gives up
            with pytest.raises(
                DataError, match=rf"image\.{suffix}: could not be read as an image \(.+\); repair or"
            ) as got:
                read_image(str(path), 8)
        assert "\n" not in str(got.value)


@pytest.mark.parametrize(("content", "reason"), [(b"", "unknown format"), (b"<!DOCTYPE html>", "unknown format")])
def test_a_file_that_is_no_image(tmp_path, content, reason):
    (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"image\.png: could not be read as an image \({reason}\)"):
        read_image(str(tmp_path / "image.png"), 8)


def test_a_file_that_is_not_there_and_a_folder(tmp_path):
    with pytest.raises(DataError, match=r"none\.png: could not be read as an image \(No such file or directory\)"):
        read_image(str(tmp_path / "none.png"), 8)
    with pytest.raises(DataError, match=r"could not be read as an image \(Is a directory\)"):
        read_image(str(tmp_path), 8)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_an_unknown_range(tmp_path, mode):
    Image.new(mode, (4, 4), 3).save(tmp_path / "image.tif")
    with pytest.raises(DataError, match=r"image\.tif: .* \(32-bit pixels of unknown range\)"):
        read_image(str(tmp_path / "image.tif"), 8)


def test_an_image_that_claims_too_many_pixels(tmp_path, write_image, monkeypatch):
    write_image(tmp_path / "image.png", 40, 40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"image\.png: could not be read as an image \(Image size \(1600 pixels\)"):
        read_image(str(tmp_path / "image.png"), 8)
