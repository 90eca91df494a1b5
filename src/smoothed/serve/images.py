"""Images of requests: files, base64 text, arrays and example images, checked before they are decoded."""

import base64
import binascii
from io import BytesIO
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from smoothed.data.decode import Box, to_rgb
from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.serve.refusals import Refusal, invalid
from smoothed.utils.checks import check_inputs

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
"""Formats of image files that are read, by Pillow's names. Others have decoders of more risk, or are documents."""

GREY, COLOURS = 1, 3
"""Numbers of channels for which image files are read."""

Shape = tuple[int, int, int]
"""Channels, height and width of the images that the network takes."""


def image_from_file(data: bytes, shape: Shape, max_pixels: int, field: str = "image") -> Float[Tensor, "c h w"]:
    """Decode an image file: its middle in the proportions of the network's images, resized to their size.

    A file of that size keeps its pixels. Transparency, the low byte of 16-bit grey images and the orientation in EXIF
    data are dropped, as in `data.decode.read_image`.

    Args:
        data: contents of the file.
        shape: channels, height and width of the result.
        max_pixels: largest width times height that is decoded.
        field: name of the field in errors.

    Returns:
        Float32 pixels in [0, 1].

    Raises:
        Refusal: the file is of another format, animated, truncated or too large, or the network takes no image files.
    """
    channels, height, width = shape
    if channels not in {GREY, COLOURS}:
        raise invalid(
            field, f"a JSON array of shape {list(shape)}, because the network takes {channels} channels", "a file"
        )
    try:
        image = _opened(data, field)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise invalid(field, f"at most {max_pixels} pixels", "many more", 413, "too_large") from None
    with image:
        if image.width * image.height > max_pixels:
            got = f"{image.width} x {image.height}"
            raise invalid(field, f"an image of at most {max_pixels} pixels", got, 413, "too_large")
        frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1  # photos with a preview are no animation
        if frames > 1:
            raise invalid(field, "a still image", f"an animation of {frames} frames")
        try:
            pixels = _resized(image, height, width, grey=channels == GREY)
        except Exception as error:  # decoders raise almost any exception on damaged files
            reason = " ".join(str(error).split()) or type(error).__name__
            raise invalid(
                field, f"a complete {image.format} file", f"one that can't be decoded ({reason:.100})"
            ) from None
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255)


def _opened(data: bytes, field: str) -> Image.Image:
    """The image with its header read, but no pixels."""
    try:
        return Image.open(BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception:  # decoders raise errors of many types for damaged files
        expected = f"an image file of the format {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        got = f"{len(data)} bytes of another format or damaged ones" if data else "an empty file"
        raise invalid(field, expected, got, 415, "unsupported") from None


def _resized(image: Image.Image, height: int, width: int, *, grey: bool) -> np.ndarray:
    """The middle of an image in the proportions of the result, resized, (height, width, 1 or 3) uint8."""
    converted = to_rgb(image)
    converted = converted.convert("L") if grey else converted
    box = _middle(converted.width, converted.height, height, width)
    made = np.array(converted.resize((width, height), Image.Resampling.BILINEAR, box=box))
    return made[..., None] if grey else made


def _middle(width: int, height: int, to_height: int, to_width: int) -> Box:
    """The largest rectangle of the proportions `to_width` : `to_height` in the middle of an image."""
    part = min(width / to_width, height / to_height)
    left, top = (width - part * to_width) / 2, (height - part * to_height) / 2
    return left, top, min(left + part * to_width, width), min(top + part * to_height, height)


def image_from_json(value: Any, images: Images, shape: Shape, max_pixels: int) -> Float[Tensor, "c h w"]:  # noqa: ANN401
    """Read the field `image` of a JSON body.

    Args:
        value: an array (C, H, W) of numbers in [0, 1], `{"png": base64 text of an image file}`, or `{"id": number}` of
            an example image.
        images: the example images.
        shape: channels, height and width of the network's images.
        max_pixels: largest width times height of a file.

    Raises:
        Refusal: the value is anything else.
    """
    if isinstance(value, list):
        return _from_array(value, shape)
    if isinstance(value, dict) and set(value) == {"id"}:
        number = value["id"]
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(images):
            raise invalid("image.id", f"the number of an example image, 0..{len(images) - 1}", f"{number!r:.80}")
        return bundled_image(images, number)
    if isinstance(value, dict) and set(value) == {"png"}:
        return image_from_file(_from_base64(value["png"]), shape, max_pixels, "image.png")
    expected = f'an array of shape {list(shape)} with numbers in [0, 1], {{"png": BASE64}} or {{"id": NUMBER}}'
    got = f"an object with the fields {', '.join(map(str, value))}" if isinstance(value, dict) else f"{value!r:.80}"
    raise invalid("image", expected, f"{got:.160}")


def bundled_image(images: Images, number: int) -> Float[Tensor, "c h w"]:
    """An example image, in [0, 1], on the CPU."""
    return next(iter(images.subset(slice(number, number + 1)).batches(1)))[0][0].cpu()


def _from_array(value: list[Any], shape: Shape) -> Float[Tensor, "c h w"]:
    expected = f"numbers in [0, 1] as an array of shape {list(shape)}"
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, RecursionError):
        raise invalid("image", expected, "lists of different lengths") from None
    if array.dtype.kind not in "fiu":
        raise invalid("image", expected, "an array with other values than numbers")
    if array.shape != shape:
        raise invalid("image", expected, f"shape {list(array.shape)}")
    try:
        return check_inputs(torch.from_numpy(array.astype(np.float64))[None], "image")[0].float()
    except ArgumentError as error:
        raise Refusal(422, "invalid", str(error)) from None


def _from_base64(text: object) -> bytes:
    expected = "the base64 text of an image file"
    if not isinstance(text, str):
        raise invalid("image.png", expected, f"{text!r:.80}")
    head, comma, rest = text.partition(",")
    try:
        return base64.b64decode(rest if comma and head.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("image.png", expected, f"text that is not base64, {text[:20]!r}...") from None
