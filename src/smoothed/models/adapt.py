"""Any classifier as a network from images in [0, 1] to logits."""

import copy
from collections.abc import Iterator, Sequence
from itertools import chain
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, fx, nn

from smoothed.errors import ArgumentError
from smoothed.models.normalize import Normalize
from smoothed.utils.checks import check_choice, check_logits, output_logits
from smoothed.utils.modes import Classifier

Outputs = Literal["logits", "probabilities"]
"""What a classifier returns for each image and class."""
Statistics = tuple[Sequence[float], Sequence[float]] | tuple[float, float] | Normalize
"""Mean and standard deviation for each channel, in pixel units of [0, 1]; single numbers for one channel."""

_SUM_TOLERANCE = 1e-4
"""Smallest tolerance for the sum of a row of probabilities; their dtype may need a larger one."""


class ModelAdapter(nn.Module):
    """A classifier of any kind as a network from images (N, C, H, W) in [0, 1] to float32 logits (N, K).

    Images are normalised if `normalize` is given and cast to the dtype of the model's weights; the logits are taken out
    of output objects such as those of transformers, and cast to float32. Noise layers inside the model keep working.
    The names of the model's submodules begin with `model.`, for example in `layer=` of `Smoothed`.

    Args:
        model: a network, or any callable from images, normalised if `normalize` is given, to logits (N, K), or to an
            object whose attribute `logits` they are. It is neither copied nor changed.
        normalize: mean and standard deviation for each channel, in pixel units of [0, 1], or a `Normalize` layer, which
            is copied; None if the model accepts images in [0, 1].
        outputs: `logits`, or `probabilities` if each row of the outputs is in [0, 1] and sums to 1. Their logarithm is
            then taken as the logits, so votes of classes and of probabilities are those of the model. Where
            probabilities are rounded to 0 the gradient is 0: gradient attacks are stronger on a model's own logits.

    Attributes:
        normalize: the `Normalize` layer in front of the model, else that of the model itself, else None.

    Raises:
        ArgumentError: `model` cannot be called, the statistics are invalid, the model has a `Normalize` layer of its
            own and `normalize` is given, or `outputs` is unknown; in a call, the model returns something else than the
            outputs that were announced.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2), nn.Softmax(1)).half()
        >>> model = ModelAdapter(network, normalize=((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), outputs="probabilities")
        >>> model(torch.rand(5, 3, 2, 2)).dtype
        torch.float32
    """

    def __init__(self, model: Classifier, normalize: Statistics | None = None, outputs: Outputs = "logits") -> None:
        super().__init__()
        if isinstance(model, type) or not callable(model):
            raise ArgumentError("model", "a network or another callable from images to logits", _described(model))
        self.outputs: Outputs = check_choice(outputs, get_args(Outputs), "outputs")  # pyright: ignore[reportAttributeAccessIssue]
        self.model = model
        if normalize is not None and isinstance(getattr(model, "normalize", None), Normalize):
            raise ArgumentError("normalize", "None, because the model has a Normalize layer of its own", normalize)
        # Not called `normalize`, which is also the name of a layer inside the model.
        self.front = None if normalize is None else as_normalize(normalize).to(device_of(model))
        self.training = model.training if isinstance(model, nn.Module) else False

    @property
    def normalize(self) -> Normalize | None:
        """The `Normalize` layer in front of the model, else that of the model itself, else None."""
        own = getattr(self.model, "normalize", None) if self.front is None else self.front
        return own if isinstance(own, Normalize) else None

    @property
    def checkpoint_header(self) -> dict[str, Any] | None:
        """The header of the checkpoint from which the model was loaded; None for other models."""
        return getattr(self.model, "checkpoint_header", None)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to float32 logits (N, K); differentiable with respect to the images."""
        # Without conditions on values or dtypes of tensors, so that torch.fx can trace it for `Fast`.
        dtype = float_dtype(self.model)
        if self.front is not None:
            inputs = self.front(inputs)
        if dtype is not None:
            inputs = inputs.to(dtype)
        outputs: Any = output_logits(self.model(inputs))
        if not _is_traced(outputs):
            check_logits(outputs, len(inputs))
        return outputs.float() if self.outputs == "logits" else _log_of_probabilities(outputs)

    def extra_repr(self) -> str:
        """Return what the model returns, and a callable that is no module, for printing."""
        shown = "" if isinstance(self.model, nn.Module) else f"{self.model}, "
        return f"{shown}outputs={self.outputs}"


def wraps_function(module: nn.Module) -> bool:
    """Whether a module is a `ModelAdapter` of a callable that is no module, whose randomness is unknown."""
    return isinstance(module, ModelAdapter) and not isinstance(module.model, nn.Module)


def as_normalize(statistics: Statistics) -> Normalize:
    """Return a new `Normalize` layer with the given mean and standard deviation.

    Args:
        statistics: mean and standard deviation for each channel, in pixel units of [0, 1], as two sequences of numbers
            (or two numbers for images of one channel), or a `Normalize` layer.

    Raises:
        ArgumentError: `statistics` are not two sequences of one length, a number is not finite, or numbers are above 1
            and so for pixels of 0 .. 255.
    """
    if isinstance(statistics, Normalize):
        return copy.deepcopy(statistics)
    expected = "a mean and a standard deviation for each channel"
    hint = "for example ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))"
    if not isinstance(statistics, tuple | list) or len(statistics) != 2:
        raise ArgumentError("normalize", expected, _shortened(statistics), hint)
    mean, std = (_numbers(part) for part in statistics)
    if not mean or not std or len(mean) != len(std):
        raise ArgumentError("normalize", expected, _shortened(statistics), hint)
    if not all(0 < value < float("inf") for value in std) or not all(abs(value) < float("inf") for value in mean):
        raise ArgumentError("normalize", "finite means and positive standard deviations", _shortened(statistics))
    if max(*mean, *std) > 1:
        raise ArgumentError("normalize", "values for pixels in [0, 1]", _shortened(statistics), "divide them by 255")
    return Normalize(mean, std)


def _numbers(values: object) -> tuple[float, ...]:
    """The values as floats; empty if they are no numbers."""
    sequence: Any = values
    if isinstance(values, Tensor | np.ndarray):
        sequence = values.flatten().tolist()
    sequence = (sequence,) if isinstance(sequence, Real) else sequence
    if not isinstance(sequence, Sequence) or isinstance(sequence, str):
        return ()
    if not all(isinstance(value, Real) and not isinstance(value, bool) for value in sequence):
        return ()
    return tuple(float(value) for value in sequence)


def float_dtype(model: object) -> torch.dtype | None:
    """Return the dtype of the model's first floating-point parameter, or buffer without parameters; None if none."""
    return next((tensor.dtype for tensor in _tensors_of(model) if tensor.is_floating_point()), None)


def device_of(model: object) -> torch.device | None:
    """Return the device of the model's first parameter, or buffer without parameters; None if it has neither."""
    return next((tensor.device for tensor in _tensors_of(model)), None)


def _tensors_of(model: object) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers()) if isinstance(model, nn.Module) else iter(())


def _log_of_probabilities(outputs: Tensor) -> Tensor:
    """Logarithms (N, K), float32, of probabilities (N, K), each of which is raised to at least 1e-38 before."""
    if not _is_traced(outputs) and not looks_like_probabilities(outputs):
        raise ArgumentError("outputs", "probabilities, rows in [0, 1] that sum to 1", "other values from the model")
    return outputs.float().clamp(min=torch.finfo(torch.float32).tiny).log()


def _is_traced(outputs: object) -> bool:
    """Whether a tracer of torch.fx runs the network, so that the values of its outputs are unknown."""
    return isinstance(outputs, fx.Proxy)


def looks_like_probabilities(outputs: object) -> bool:
    """Whether a model's outputs are probabilities: rows in [0, 1] that sum to 1, up to rounding of their dtype.

    Args:
        outputs: what the model returned for a batch, (N, K), or an object whose attribute `logits` it is. The more
            images, the less likely is it that logits look like this.

    Returns:
        False for anything but a float tensor (N, K) with N >= 1 and K >= 2.
    """
    values = output_logits(outputs)
    if not isinstance(values, Tensor) or not values.is_floating_point() or values.ndim != 2:
        return False
    if values.shape[0] < 1 or values.shape[1] < 2:
        return False
    values = values.detach()
    # Half precision is recognised by its values, too, because they may have been cast since.
    rounded = (t for t in (torch.bfloat16, torch.float16) if torch.equal(values.to(t).to(values.dtype), values))
    tolerance = max(_SUM_TOLERANCE, 4 * torch.finfo(next(rounded, values.dtype)).eps)
    in_range = ((values >= 0) & (values <= 1 + tolerance)).all()
    return bool(in_range & ((values.double().sum(1) - 1).abs() <= tolerance).all())


def check_not_probabilities(outputs: object, argument: str = "model") -> None:
    """Raise an error if a model's outputs are probabilities where logits are expected.

    Args:
        outputs: as in `looks_like_probabilities`.
        argument: name of the model's argument in the error message.

    Raises:
        ArgumentError: `looks_like_probabilities(outputs)`.
    """
    if looks_like_probabilities(outputs):
        hint = 'load it by smoothed.load(..., outputs="probabilities"), or --outputs probabilities on the command line'
        raise ArgumentError(argument, "logits", "probabilities, rows in [0, 1] that sum to 1", hint)


def _described(model: object) -> str:
    if isinstance(model, type):
        return f"the class {model.__name__}; create an object of it"
    return _shortened(model)


def _shortened(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
