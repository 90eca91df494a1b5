"""One image file to pixels: decoded, made RGB, and cropped to a square of the size asked for."""

import math

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from smoothed.errors import DataError
from smoothed.rng.seeds import seeded

AREA = (0.35, 1.0)
RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, in its pixels."""


def read_image(path: str, size: int, seed: int | None = None) -> UInt8[Tensor, "3 size size"]:
    """The image in a file, as `size` x `size` pixels.

    Resized with an antialiased bilinear filter. Transparency is dropped, 16-bit grey loses its low byte, and an
    orientation in the EXIF data is not applied.

    Args:
        path: of the file, in any format that Pillow reads.
        size: of the result.
        seed: of a random crop; with None, the shorter side becomes `size` and the centre is kept.

    Raises:
        DataError: no such file, a damaged one, or one that is no image.
    """
    try:
        with Image.open(path) as file:
            image = _rgb(file)
            box = central_square(*image.size) if seed is None else random_box(*image.size, seeded(seed))
            pixels = np.array(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        raise DataError(f"{path}: could not be read as an image ({_reason(error)}); mend or remove it") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def central_square(width: int, height: int) -> Box:
    """The largest square in the middle of an image."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def random_box(width: int, height: int, generator: torch.Generator) -> Box:
    """A random part of an image, as networks on ImageNet are trained with (Szegedy et al., 2015).

    Its share of the area is uniform in [0.35, 1], the logarithm of its width to its height in that of [3/4, 4/3], and
    its place uniform, given that it fits. Where ten draws don't fit, as in a narrow image, it is the largest centred
    part of such a ratio.
    """
    low, high = (math.log(ratio) for ratio in RATIO)
    draws = torch.rand(ATTEMPTS, 4, generator=generator, dtype=torch.float64)
    for area, ratio, across, down in draws.tolist():
        share, stretch = AREA[0] + (AREA[1] - AREA[0]) * area, math.exp(low + (high - low) * ratio)
        box_width, box_height = (math.sqrt(share * width * height * factor) for factor in (stretch, 1 / stretch))
        if box_width <= width and box_height <= height:
            left, top = across * (width - box_width), down * (height - box_height)
            # Rounding must not lead out of the image.
            return left, top, min(left + box_width, width), min(top + box_height, height)
    box_width, box_height = min(width, height * RATIO[1]), min(height, width / RATIO[0])
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits, whose range it does not say")
    if image.mode.startswith("I;16"):  # Pillow would cut values at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info:  # else Pillow warns of palettes with it
        image = image.convert("RGBA")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text repeats the path
        return "of no known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
