"""What every entry point asks of its arguments, with one wording for the errors."""

import difflib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from smoothed.errors import ArgumentError

RANGE_TOLERANCE = 1e-6


def check_inputs(inputs: Tensor, name: str = "inputs") -> Tensor:
    """Return `inputs` clipped to [0, 1] if they are images, else raise.

    Args:
        inputs: float images in [0, 1], (N, C, H, W) with N >= 1. Values up to 1e-6 outside the range are clipped.
        name: what to call the argument in errors.

    Raises:
        ArgumentError: not a float tensor of four dimensions, an empty batch, NaN, or values out of range.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        what = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ArgumentError(name, "a float tensor of images in [0, 1]", what, "divide uint8 images by 255")
    if inputs.ndim != 4:
        raise ArgumentError(name, "shape (N, C, H, W)", f"shape {tuple(inputs.shape)}")
    if inputs.numel() == 0:
        raise ArgumentError(name, "at least one image", "an empty batch")
    low, high = (bound.item() for bound in torch.aminmax(inputs.detach()))
    if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):  # NaN fails every comparison
        got = "NaN" if math.isnan(low) else f"values in [{low:.6g}, {high:.6g}]"
        raise ArgumentError(name, "images in [0, 1]", got, "normalisation is the model's first layer")
    return inputs if low >= 0 and high <= 1 else inputs.clamp(0, 1)


def check_labels(labels: Tensor, inputs: Tensor, name: str = "labels") -> Tensor:
    """Return `labels` if they are int64 of shape (N,), one an image, else raise `ArgumentError`."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != inputs.shape[:1]:
        got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise ArgumentError(name, f"int64 classes of shape ({len(inputs)},)", got)
    return labels


@contextmanager
def naming_channels(inputs: Tensor) -> Iterator[None]:
    """Turn a network's complaint about channels, inside the block, into an `ArgumentError` on `inputs`."""
    try:
        yield
    except RuntimeError as error:
        if "channels" not in str(error):
            raise
        got = f"shape {tuple(inputs.shape)}"
        raise ArgumentError("inputs", "the channels that the model takes", got, str(error).splitlines()[0]) from error


def check_classes(labels: Tensor, num_classes: int, name: str = "labels") -> Tensor:
    """Return `labels` if they lie in 0 .. num_classes - 1, else raise `ArgumentError`."""
    low, high = _bounds(labels)
    if low < 0 or high >= num_classes:
        raise ArgumentError(name, f"classes in 0..{num_classes - 1}, the model's", low if low < 0 else high)
    return labels


# The bounds of label tensors by their version: attacks ask at each gradient, and on a GPU each reading waits for it.
_known_bounds: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _bounds(labels: Tensor) -> tuple[int, int]:
    version = None if labels.is_inference() else labels._version
    known = _known_bounds.get(labels)
    if known is None or version is None or known[0] != version:
        low, high = torch.aminmax(labels)
        known = _known_bounds[labels] = version, (int(low), int(high))
    return known[1]


def check_logits(logits: Tensor, rows: int, name: str = "model") -> Tensor:
    """Return `logits` if they are floats of shape (rows, K) with K >= 2, else raise `ArgumentError`."""
    if (
        not isinstance(logits, Tensor)
        or not logits.is_floating_point()
        or logits.ndim != 2
        or logits.shape[0] != rows
        or logits.shape[1] < 2
    ):
        got = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ArgumentError(name, f"float logits of shape ({rows}, K), K >= 2, from the model", got)
    return logits


def check_positive(value: int, name: str) -> int:
    """Return `value` if it is an integer of at least 1, else raise `ArgumentError`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ArgumentError(name, "an integer of at least 1", repr(value))
    return int(value)


def check_not_negative(value: float, name: str) -> float:
    """Return `value` if it is a finite number of at least 0, else raise `ArgumentError`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < float("inf"):
        raise ArgumentError(name, "a finite number of at least 0", repr(value))
    return float(value)


def check_fraction(value: float, name: str) -> float:
    """Return `value` if it lies in [0, 1], else raise `ArgumentError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ArgumentError(name, "a number in [0, 1]", repr(value))
    return value


def check_choice(value: str, choices: Iterable[str], name: str) -> str:
    """Return `value` if it is one of `choices`, else raise `ArgumentError`, which names the nearest ones."""
    allowed = tuple(choices)
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed)
        hint = f"did you mean {' or '.join(near)}?" if near else ""
        raise ArgumentError(name, "one of " + ", ".join(allowed), repr(value), hint)
    return value
