"""Images of requests: what is read keeps its pixels, and what is not is refused before it is decoded."""

import base64
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from smoothed.data.imageset import ImageSet
from smoothed.serve.images import image_from_file, image_from_json
from smoothed.serve.refusals import Refusal

SHAPE, PIXELS = (3, 8, 8), 10_000


def encoded(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width, height, mode="RGB"):
    channels = len(mode)
    pixels = np.random.default_rng(0).integers(256, size=(height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[..., 0], mode if channels != 1 else None)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
    """A PNG file whose header states a size that its few bytes of data don't have."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def test_a_file_of_the_size_of_the_network_keeps_its_pixels(sharp_image, png):
    assert torch.equal(image_from_file(png(sharp_image), SHAPE, PIXELS), sharp_image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP"])
def test_formats(kind):
    found = image_from_file(encoded(noise(20, 12), kind), SHAPE, PIXELS)
    assert found.shape == SHAPE
    assert found.dtype == torch.float32
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_the_middle_of_a_wide_image_is_taken():
    wide = Image.new("RGB", (40, 8), (255, 0, 0))
    wide.paste((0, 255, 0), (16, 0, 24, 8))
    found = image_from_file(encoded(wide, "PNG"), SHAPE, PIXELS)
    assert torch.equal(found, torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1).expand(3, 8, 8))


def test_images_of_a_network_with_other_proportions():
    tall = Image.new("L", (30, 30), 51)
    found = image_from_file(encoded(tall, "PNG"), (1, 12, 6), PIXELS)
    assert found.shape == (1, 12, 6)
    assert torch.allclose(found, torch.tensor(0.2))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK"])
def test_modes_are_converted_to_colours(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    image = Image.new(mode, (8, 8), 255 if mode == "L" else (255, 255, 255, 255)[: len(mode)])
    data = encoded(image, "JPEG" if kind == "TIFF" else kind)
    assert image_from_file(data, SHAPE, PIXELS).shape == SHAPE


FILES = {
    "empty": (b"", 415, "expected an image file of the format BMP, GIF, JPEG, PNG or WEBP, got an empty file"),
    "text": (b"hello" * 10, 415, "got 50 bytes of another format"),
    "tiff": (encoded(noise(8, 8), "TIFF"), 415, "of another format"),
    "truncated png": (encoded(noise(20, 20), "PNG")[:-300], 422, "a complete PNG file, got one that can't be decoded"),
    "truncated jpeg": (encoded(noise(20, 20), "JPEG")[:-300], 422, "a complete JPEG file"),
    "short png header": (encoded(noise(20, 20), "PNG")[:20], 415, "of another format or damaged ones"),
    "animated gif": (
        encoded(noise(8, 8), "GIF", save_all=True, append_images=[noise(8, 8, "L"), noise(8, 8)]),
        422,
        "expected a still image, got an animation of 3 frames",
    ),
    "animated png": (
        encoded(noise(8, 8), "PNG", save_all=True, append_images=[noise(8, 8, "RGB").rotate(90)]),
        422,
        "animation of 2 frames",
    ),
    "animated webp": (
        encoded(noise(8, 8), "WEBP", save_all=True, append_images=[noise(8, 8, "RGB").rotate(90)]),
        422,
        "animation of 2 frames",
    ),
    "large": (encoded(noise(200, 51), "PNG"), 413, "expected an image of at most 10000 pixels, got 200 x 51"),
    "bomb": (bomb(9000, 9000), 413, "expected an image of at most 10000 pixels, got 9000 x 9000"),
    "huge bomb": (bomb(100_000, 100_000), 413, "at most 10000 pixels, got many more"),
    "text bomb": (
        encoded(noise(8, 8), "PNG").replace(b"IDAT", b"IDAT", 1)[:33]
        + chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 100_000_000))
        + encoded(noise(8, 8), "PNG")[33:],
        415,
        "damaged",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_refuses_files(name):
    data, status, message = FILES[name]
    with pytest.raises(Refusal) as refused:
        image_from_file(data, SHAPE, PIXELS)
    assert refused.value.status == status
    assert refused.value.detail.startswith("image: expected ")
    assert message in refused.value.detail


def test_networks_with_other_channels_take_no_files(sharp_image, png):
    with pytest.raises(Refusal, match=r"image: expected a JSON array of shape \[4, 8, 8\]"):
        image_from_file(png(sharp_image), (4, 8, 8), PIXELS)


@pytest.fixture
def bundled(images, labels):
    return ImageSet("random", images, labels, tuple("abcd"))


def read(value, bundled):
    return image_from_json(value, bundled, SHAPE, PIXELS)


def test_arrays_numbers_and_base64(sharp_image, png, bundled, images):
    assert torch.equal(read(sharp_image.double().tolist(), bundled), sharp_image)
    assert torch.equal(read({"id": 5}, bundled), images[5])
    text = base64.b64encode(png(sharp_image)).decode()
    assert torch.equal(read({"png": text}, bundled), sharp_image)
    assert torch.equal(read({"png": f"data:image/png;base64,{text}"}, bundled), sharp_image)
    assert torch.equal(read([[[0] * 8] * 8, [[1] * 8] * 8, [[0] * 8] * 8], bundled)[1], torch.ones(8, 8))


GOOD = [[[0.5] * 8] * 8] * 3
ARRAYS = {
    "shape": ([[[0.5] * 8] * 7] * 3, r"numbers in \[0, 1\] as an array of shape \[3, 8, 8\], got shape \[3, 7, 8\]"),
    "flat": ([0.5] * 192, r"got shape \[192\]"),
    "empty": ([], r"got shape \[0\]"),
    "ragged": ([[[0.5] * 8] * 8, [[0.5] * 8] * 8, [[0.5] * 8] * 7], "lists of different lengths"),
    "words": ([[["a"] * 8] * 8] * 3, "an array with other values than numbers"),
    "flags": ([[[True] * 8] * 8] * 3, "an array with other values than numbers"),
    "null": ([[[None] * 8] * 8] * 3, "an array with other values than numbers"),
    "huge whole number": ([[[10**400] * 8] * 8] * 3, "an array with other values than numbers"),
    "above": ([[[1.5] * 8] * 8] * 3, r"expected images in \[0, 1\], got values in \[1.5, 1.5\]"),
    "bytes": ([[[255] * 8] * 8] * 3, r"expected images in \[0, 1\], got values in \[255, 255\]"),
    "nan": ([[[float("nan")] * 8] * 8] * 3, r"expected images in \[0, 1\], got NaN"),
    "infinite": ([[[float("inf")] * 8] * 8] * 3, r"expected images in \[0, 1\]"),
    "huge": ([[[1e300] * 8] * 8] * 3, r"expected images in \[0, 1\]"),
    "number": (3, "an array of shape .* got 3"),
    "text": ("x" * 500, "got 'x{10,100}"),
    "null image": (None, "got None"),
    "other object": ({"url": "x"}, "got an object with the fields url"),
    "two fields": ({"id": 1, "png": ""}, "got an object with the fields id, png"),
    "unknown number": ({"id": 16}, r"image.id: expected the number of an example image, 0..15, got 16"),
    "negative number": ({"id": -1}, "image.id: .* got -1"),
    "flag as number": ({"id": True}, "image.id: .* got True"),
    "fraction": ({"id": 0.5}, "image.id: .* got 0.5"),
    "no text": ({"png": 5}, "image.png: expected the base64 text of an image file, got 5"),
    "no base64": ({"png": "!?"}, r"image.png: .* text that is not base64, '!\?'"),
    "no image": ({"png": base64.b64encode(b"text").decode()}, "image.png: expected an image file of the format"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_refuses_json(name, bundled):
    value, message = ARRAYS[name]
    with pytest.raises(Refusal, match=message) as refused:
        read(value, bundled)
    assert refused.value.status in {413, 415, 422}
    assert len(refused.value.detail) < 400
