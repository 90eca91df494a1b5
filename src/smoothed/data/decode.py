"""Decoding of image files to RGB pixels, cropped and resized to a square."""

import math

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from smoothed.errors import DataError
from smoothed.rng.seeds import seeded

# Random crops: share of the image area, ratio of width to height, and number of attempts.
AREA_RANGE = (0.35, 1.0)
ASPECT_RATIO_RANGE = (3 / 4, 4 / 3)
MAX_ATTEMPTS = 10

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a rectangle in an image, in pixels."""


def read_image(path: str, size: int, seed: int | None = None) -> UInt8[Tensor, "3 size size"]:
    """Read an image file and crop and resize it to `size` x `size` pixels.

    The image is resized with an antialiased bilinear filter. Transparency and the low byte of 16-bit grey images are
    dropped, and the orientation in EXIF data is ignored.

    Args:
        path: path of the file, in any format that Pillow reads.
        size: height and width of the result, in pixels.
        seed: seed of a random crop (`random_box`); None for the largest central square.

    Returns:
        Pixels from 0 to 255, uint8 (3, size, size).

    Raises:
        DataError: the file is missing, damaged, or not an image.
    """
    try:
        with Image.open(path) as file:
            image = to_rgb(file)
            box = central_square(*image.size) if seed is None else random_box(*image.size, seeded(seed))
            pixels = np.array(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    except Exception as error:  # decoders raise almost any exception on damaged files
        raise DataError(f"{path}: could not be read as an image ({_reason(error)}); repair or remove it") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def central_square(width: int, height: int) -> Box:
    """Return the largest square in the centre of an image of `width` x `height` pixels."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def random_box(width: int, height: int, generator: torch.Generator) -> Box:
    """Draw a random rectangle in an image, as in training on ImageNet (Szegedy et al., 2015).

    Its share of the image area is uniform in [0.35, 1], the logarithm of its ratio of width to height is uniform
    between those of 3/4 and 4/3, and its position is uniform. If none of ten such rectangles fits, for example in a
    narrow image, the result is the largest centred rectangle with a ratio in this range.

    Args:
        width: width of the image, in pixels.
        height: height of the image, in pixels.
        generator: generator on the CPU.
    """
    low, high = (math.log(ratio) for ratio in ASPECT_RATIO_RANGE)
    draws = torch.rand(MAX_ATTEMPTS, 4, generator=generator, dtype=torch.float64)
    for area, ratio, across, down in draws.tolist():
        share, stretch = AREA_RANGE[0] + (AREA_RANGE[1] - AREA_RANGE[0]) * area, math.exp(low + (high - low) * ratio)
        box_width, box_height = (math.sqrt(share * width * height * factor) for factor in (stretch, 1 / stretch))
        if box_width <= width and box_height <= height:
            left, top = across * (width - box_width), down * (height - box_height)
            # Rounding could move the edges outside the image.
            return left, top, min(left + box_width, width), min(top + box_height, height)
    box_width, box_height = min(width, height * ASPECT_RATIO_RANGE[1]), min(height, width / ASPECT_RATIO_RANGE[0])
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB; transparency and the low byte of 16-bit grey images are dropped.

    Raises:
        ValueError: the pixels have 32 bits, so their range is unknown.
    """
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels of unknown range")
    if image.mode.startswith("I;16"):  # Pillow would clip values at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info:  # without it, Pillow warns about palettes with transparency
        image = image.convert("RGBA")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text repeats the path
        return "unknown format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
