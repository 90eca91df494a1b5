"""Argument checks shared by all public functions, with uniform error messages."""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.weak import WeakTensorKeyDictionary

from smoothed.errors import ArgumentError

RANGE_TOLERANCE = 1e-6
# Number of choices above which an error names the similar ones before all others.
MANY = 8


def check_inputs(inputs: Tensor, name: str = "inputs") -> Tensor:
    """Return `inputs` clipped to [0, 1] if they are valid images, else raise `ArgumentError`.

    Args:
        inputs: float images in [0, 1], (N, C, H, W) with N >= 1. Values up to 1e-6 outside the range are clipped.
        name: name of the argument in error messages.

    Raises:
        ArgumentError: `inputs` are not a float tensor of four dimensions, are empty, or hold NaN or values out of
            range.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        got = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ArgumentError(name, "a float tensor of images in [0, 1]", got, "divide uint8 images by 255")
    if inputs.ndim != 4:
        raise ArgumentError(name, "shape (N, C, H, W)", f"shape {tuple(inputs.shape)}")
    if inputs.numel() == 0:
        raise ArgumentError(name, "at least one image", "an empty batch")
    low, high = (bound.item() for bound in torch.aminmax(inputs.detach()))
    if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):  # NaN fails every comparison
        got = "NaN" if math.isnan(low) else f"values in [{low:.6g}, {high:.6g}]"
        raise ArgumentError(name, "images in [0, 1]", got, "normalise inside the model, as its first layer")
    return inputs if low >= 0 and high <= 1 else inputs.clamp(0, 1)


def check_labels(labels: Tensor, inputs: Tensor, name: str = "labels") -> Tensor:
    """Return `labels` if they are int64 of shape (N,), one per image, else raise `ArgumentError`."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != inputs.shape[:1]:
        got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise ArgumentError(name, f"int64 classes of shape ({len(inputs)},)", got)
    return labels


@contextmanager
def explaining_channel_errors(inputs: Tensor) -> Iterator[None]:
    """Convert a network's `RuntimeError` about channels inside the block into an `ArgumentError` about `inputs`."""
    try:
        yield
    except RuntimeError as error:
        if "channels" not in str(error):
            raise
        got = f"shape {tuple(inputs.shape)}"
        expected = "the number of channels that the model accepts"
        raise ArgumentError("inputs", expected, got, str(error).splitlines()[0]) from error


def check_classes(labels: Tensor, num_classes: int, name: str = "labels") -> Tensor:
    """Return `labels` if they lie in 0 .. num_classes - 1, else raise `ArgumentError`."""
    low, high = _label_range(labels)
    if low < 0 or high >= num_classes:
        raise ArgumentError(name, f"classes in 0..{num_classes - 1} of the model", low if low < 0 else high)
    return labels


# Smallest and largest label by tensor and version. Attacks check labels at each gradient, and reading waits for a GPU.
_known_bounds: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _label_range(labels: Tensor) -> tuple[int, int]:
    version = None if labels.is_inference() else labels._version
    known = _known_bounds.get(labels)
    if known is None or version is None or known[0] != version:
        low, high = torch.aminmax(labels)
        known = _known_bounds[labels] = version, (int(low), int(high))
    return known[1]


def output_logits(output: Any) -> Any:  # noqa: ANN401 - whatever a model returns
    """Return the `logits` attribute of a model's output object if it is a tensor, else the output itself.

    Args:
        output: what a model returned: a tensor, or an object with the logits (N, K) as its attribute `logits`, such as
            the outputs of the image classifiers of Hugging Face's transformers.
    """
    # A traced network (torch.fx) computes with proxies, which stand for tensors and seem to have every attribute.
    if isinstance(output, Tensor | fx.Proxy):
        return output
    logits = getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor | fx.Proxy) else output


def check_logits(output: Any, rows: int, name: str = "model") -> Tensor:  # noqa: ANN401 - whatever a model returns
    """Return the logits of a model's output, or raise an error if it has none.

    Args:
        output: what the model returned: float logits of shape (rows, K) with K >= 2, or an object whose attribute
            `logits` they are.
        rows: number of images that the model received.
        name: name of the model's argument in error messages.

    Raises:
        ArgumentError: `output` is anything else, for example a tuple.
    """
    logits = output_logits(output)
    if (
        not isinstance(logits, Tensor)
        or not logits.is_floating_point()
        or logits.ndim != 2
        or logits.shape[0] != rows
        or logits.shape[1] < 2
    ):
        is_tensor = isinstance(logits, Tensor)
        got = f"{logits.dtype} {tuple(logits.shape)}" if is_tensor else _describe_output(logits)
        hint = "" if is_tensor else "wrap the model in a function that returns its logits alone"
        raise ArgumentError(name, f"float logits of shape ({rows}, K), K >= 2, from the model", got, hint)
    return logits


def check_values(values: Any, rows: int, name: str) -> Tensor:  # noqa: ANN401 - whatever a loss returns
    """Return the values of a loss or an objective if they are a float tensor (rows,), else raise `ArgumentError`.

    Args:
        values: what the function returned.
        rows: number of images that it received.
        name: name of the function's argument in error messages.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point() or values.shape != (rows,):
        got = f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else _describe_output(values)
        hint = 'for example by reduction="none"' if isinstance(values, Tensor) and values.ndim == 0 else ""
        raise ArgumentError(name, f"one float value per image, shape ({rows},)", got, hint)
    return values


def _describe_output(output: object) -> str:
    """Describe an output that is no tensor, for example `a tuple of 2` or `a dict with the keys logits, loss`."""
    if isinstance(output, Mapping):
        keys = ", ".join(str(key) for key in list(output)[:5]) + (", ..." if len(output) > 5 else "")
        return f"a {type(output).__name__} with the keys {keys}" if output else f"an empty {type(output).__name__}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}"
    return "None" if output is None else f"an object of type {type(output).__name__}"


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


def check_not_negative_integer(value: int, name: str) -> int:
    """Return `value` if it is an integer of at least 0, else raise `ArgumentError`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ArgumentError(name, "an integer of at least 0", repr(value))
    return int(value)


def check_callable(value: object, name: str) -> None:
    """Raise `ArgumentError` unless `value` can be called."""
    if not callable(value):
        raise ArgumentError(name, "a function or another callable", repr(value))


def check_network(value: object, name: str) -> None:
    """Raise `ArgumentError` unless `value` is a `torch.nn.Module`."""
    if not isinstance(value, nn.Module):
        raise ArgumentError(name, "a torch.nn.Module", f"an object of type {type(value).__name__}")


def check_generator(value: object, name: str = "generator") -> None:
    """Raise `ArgumentError` unless `value` is None or a `torch.Generator`."""
    if value is not None and not isinstance(value, torch.Generator):
        raise ArgumentError(name, "None or a torch.Generator", repr(value))


def check_flag(value: bool, name: str) -> bool:
    """Return `value` if it is True or False, else raise `ArgumentError`."""
    if not isinstance(value, bool):
        raise ArgumentError(name, "True or False", repr(value))
    return value


def check_seed(value: int, name: str = "seed") -> int:
    """Return `value` if it is an integer of 64 bits, which generators take, else raise `ArgumentError`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not -(2**63) <= value < 2**63:
        raise ArgumentError(name, "an integer of at most 64 bits", repr(value))
    return int(value)


def check_fraction(value: float, name: str) -> float:
    """Return `value` if it lies in [0, 1], else raise `ArgumentError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ArgumentError(name, "a number in [0, 1]", repr(value))
    return value


def check_choice(value: str, choices: Iterable[str], name: str) -> str:
    """Return `value` if it is one of `choices`, else raise `ArgumentError` with the most similar choices."""
    allowed = tuple(choices)
    if value not in allowed:
        similar = difflib.get_close_matches(str(value), allowed)
        hint = f"did you mean {' or '.join(similar)}?" if similar else ""
        if similar and len(allowed) > MANY:  # the hint would be lost behind all names
            raise ArgumentError(name, f"one of {len(allowed)} names", repr(value), f"{hint} All: {', '.join(allowed)}")
        raise ArgumentError(name, "one of " + ", ".join(allowed), repr(value), hint)
    return value
