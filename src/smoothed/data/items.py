"""Conversion of one item of the user's data set to an image and a label, with errors that name the item."""

from collections.abc import Mapping, Sequence
from numbers import Integral

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image
from torch import Tensor

from smoothed.data.decode import to_rgb
from smoothed.errors import ArgumentError
from smoothed.utils.checks import RANGE_TOLERANCE

Key = str | int
Keys = tuple[Key, Key]
"""Key of the image and key of the label in an item, or their positions in an item that is a tuple."""

MAPPING_KEYS: tuple[Keys, ...] = (("image", "label"), ("img", "label"), ("pixel_values", "labels"))
TUPLE_KEYS: Keys = (0, 1)
# Last axes of these lengths are taken for colour channels where the second axis is too long to be one.
COLOUR_CHANNELS = (1, 3, 4)

IN_RANGE = (
    "divide pixels from 0 to 255 by 255 or pass them as uint8, and normalise inside the model: normalize=(mean, std)"
)


def keys_of(item: object, keys: Keys | None, where: str) -> Keys:
    """Return the keys of image and label in `item`.

    Args:
        item: item of a data set.
        keys: keys that the user named; None to try `MAPPING_KEYS` in a mapping and `TUPLE_KEYS` in a pair.
        where: description of the item for error messages, such as `image 7`.

    Raises:
        ArgumentError: the item has no such keys, or is neither a pair nor a mapping.
    """
    if isinstance(item, Mapping):
        for names in MAPPING_KEYS if keys is None else (keys,):
            if all(name in item for name in names):
                return names
        got = f"a mapping with {', '.join(map(repr, item))} in {where}"
        if keys is not None:
            raise ArgumentError("keys", "keys of image and label in the items of the data", f"{keys!r} for {got}")
        tried = " or ".join(f"{image!r} and {label!r}" for image, label in MAPPING_KEYS)
        raise ArgumentError("data", f"items with {tried}", got, "name the two keys: keys=(IMAGE, LABEL)")
    if isinstance(item, tuple | list):
        if keys is None and len(item) == 2:
            return TUPLE_KEYS
        got = f"{len(item)} values in {where}"
        if keys is None:
            hint = "name the positions of image and label: keys=(0, 1)"
            raise ArgumentError("data", "items that are pairs (image, label)", got, hint)
        if all(isinstance(key, int) and 0 <= key < len(item) for key in keys):
            return keys
        raise ArgumentError("keys", f"positions in 0..{len(item) - 1}, because items are tuples", f"{keys!r} for {got}")
    got = f"{describe_value(item)} in {where}"
    raise ArgumentError("data", "items that are pairs (image, label) or mappings", got)


def to_image(image: object, where: str) -> Shaped[Tensor, "c h w"]:
    """Convert an image to a tensor on the CPU.

    Args:
        image: tensor (C, H, W) or (H, W), NumPy array (H, W, C) or (H, W), or PIL image; uint8 or float in [0, 1]. PIL
            images of mode L have one channel, those of other modes are converted to RGB.
        where: description of the item for error messages.

    Returns:
        Image of shape (C, H, W), uint8 from 0 to 255 or float32 in [0, 1].

    Raises:
        ArgumentError: the image has another type, shape or range.
    """
    if isinstance(image, Image.Image):
        try:
            image = np.array(image if image.mode == "L" else to_rgb(image))
        except ValueError as error:
            raise ArgumentError("data", "8-bit images", f"{error} in {where}", "convert them in the data set") from None
    if isinstance(image, np.ndarray):
        pixels = _from_channels_last(image, where)
    elif isinstance(image, Tensor):
        pixels = _from_tensor(image, where)
    else:
        expected = "images that are tensors (C, H, W), PIL images or NumPy arrays (H, W, C)"
        hint = "convert them in the data set, for example with torchvision's ToTensor"
        raise ArgumentError("data", expected, f"{describe_value(image)} in {where}", hint)
    return pixels if pixels.dtype == torch.uint8 else in_range(pixels[None], [where])[0]


def _from_tensor(image: Tensor, where: str) -> Tensor:
    check_pixel_type(image, where)
    image = image.detach().as_subclass(Tensor).cpu()
    if image.ndim == 2:
        return image[None]
    if image.ndim != 3 or image.numel() == 0:
        hint = "pass the images themselves or a data set of single images" if image.ndim == 4 else ""
        raise ArgumentError("data", "images of shape (C, H, W)", f"shape {tuple(image.shape)} in {where}", hint)
    if is_channels_last(image.shape):
        got = f"shape {tuple(image.shape)} in {where}"
        raise ArgumentError("data", "tensors of shape (C, H, W)", got, "use image.permute(2, 0, 1) in the data set")
    return image


def _from_channels_last(image: np.ndarray, where: str) -> Tensor:
    check_pixel_type(image, where)
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[-1] not in COLOUR_CHANNELS):
        hint = "convert arrays (C, H, W) with torch.from_numpy in the data set" if image.ndim == 3 else ""
        got = f"shape {image.shape} in {where}"
        raise ArgumentError("data", "NumPy images of shape (H, W, C) or (H, W)", got, hint)
    pixels = from_numpy(image)
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def from_numpy(array: np.ndarray) -> Tensor:
    """Copy an array to a tensor, whatever its strides, byte order and flags."""
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C", subok=False))


def check_pixel_type(images: Tensor | np.ndarray, where: str) -> None:
    """Raise `ArgumentError` unless the type is uint8, float16, bfloat16, float32 or float64."""
    allowed = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
    known = images.dtype in allowed if isinstance(images, Tensor) else images.dtype.name in ALLOWED_NUMPY
    if not known:
        got = f"{images.dtype} in {where}"
        hint = "convert pixels from 0 to 255 to uint8" if "int" in str(images.dtype) else ""
        raise ArgumentError("data", "images of type uint8 or float", got, hint)


ALLOWED_NUMPY = ("uint8", "float16", "float32", "float64")


def is_channels_last(shape: Sequence[int]) -> bool:
    """Whether (..., H, W, C) is far more likely than (..., C, H, W): C is 1, 3 or 4, and H too long for channels."""
    return shape[-1] in COLOUR_CHANNELS and shape[-3] > max(COLOUR_CHANNELS)


def in_range(images: Tensor, places: Sequence[str]) -> Tensor:
    """Return float images as float32 in [0, 1]; values up to 1e-6 outside the range are clipped.

    Args:
        images: float images (N, ...).
        places: description of each image for error messages.

    Raises:
        ArgumentError: a value is NaN or lies outside [0, 1].
    """
    images = images.float()
    if not images.numel():
        return images
    low, high = (bound.item() for bound in torch.aminmax(images))
    if low >= 0 and high <= 1:
        return images
    # NaN fails every comparison.
    valid = ((images >= -RANGE_TOLERANCE) & (images <= 1 + RANGE_TOLERANCE)).flatten(1).all(1)
    if not valid.all():
        number = int(valid.logical_not().nonzero()[0])
        low, high = (bound.item() for bound in torch.aminmax(images[number]))
        nan = low != low  # noqa: PLR0124 - NaN is the only value that differs from itself
        got = f"{'NaN' if nan else f'values in [{low:.6g}, {high:.6g}]'} in {places[number]}"
        raise ArgumentError("data", "images in [0, 1]", got, "repair or leave out this image" if nan else IN_RANGE)
    return images.clamp(0, 1)


def to_label(label: object, where: str) -> int:
    """Convert a label, an integer or a tensor or array with one integer, to an int.

    Args:
        label: label of an item.
        where: description of the item for error messages.

    Raises:
        ArgumentError: the label is something else, or negative.
    """
    value = label.detach().cpu().tolist() if isinstance(label, Tensor) else label
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    while isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, bool) or not isinstance(value, Integral):
        hint = "pass the index of the class, such as label.argmax()" if isinstance(value, list) else ""
        raise ArgumentError("data", "labels that are integers", f"{describe_value(label)} in {where}", hint)
    if value < 0:
        hint = "a negative label often means that the label is unknown, as in unlabelled test sets"
        raise ArgumentError("data", "labels of at least 0", f"{value} in {where}", hint)
    return int(value)


def describe_value(value: object) -> str:
    """Short description of a value for error messages: its type, and dtype and shape of tensors and arrays."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} of {value.dtype} {tuple(value.shape)}"
    if isinstance(value, int | float | str) or value is None:
        return repr(value)
    return type(value).__name__
