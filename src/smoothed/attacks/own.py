"""Attacks of the user's own, called in the form of the attacks of this package, with checks of their results."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from smoothed.attacks.attack import Attack
from smoothed.errors import ArgumentError
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import RANGE_TOLERANCE
from smoothed.utils.modes import Classifier
from smoothed.utils.names import name_of


def as_attack(attack: Callable[..., Tensor], *, in_range: bool = False) -> Attack:
    """Return an attack of the user's own in the form of the attacks of this package.

    Args:
        attack: function of (model, inputs, labels) and, if it has a parameter of that name or a fourth positional one,
            of `generator`.
        in_range: whether its results have to be in [0, 1], as in evaluations. Training examples need not be.

    Returns:
        The same as a function of (model, inputs, labels, generator).

    Raises:
        ArgumentError: `attack` cannot be called with three or four arguments; in a call, it returns something else than
            float images of the shape of the inputs, or with `in_range` values outside [0, 1].
    """
    pass_generator = _way_to_pass_generator(attack)
    name = name_of(attack)

    def checked(model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
        adversarial: Any = pass_generator(attack, (model, inputs, labels), generator)
        expected = f"float images of shape {tuple(inputs.shape)}"
        if not isinstance(adversarial, Tensor):
            raise ArgumentError("attack", expected, f"an object of type {type(adversarial).__name__} from {name}")
        if adversarial.shape != inputs.shape or not adversarial.is_floating_point():
            raise ArgumentError("attack", expected, f"{adversarial.dtype} {tuple(adversarial.shape)} from {name}")
        adversarial = adversarial.detach()
        return _in_range(adversarial, name) if in_range else adversarial

    return checked


def _in_range(adversarial: Tensor, name: str) -> Tensor:
    low, high = (bound.item() for bound in torch.aminmax(adversarial))
    if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):  # NaN fails every comparison
        got = "NaN" if math.isnan(low) else f"values in [{low:.6g}, {high:.6g}]"
        raise ArgumentError("attack", "images in [0, 1]", f"{got} from {name}", "clip them: adversarial.clamp(0, 1)")
    return adversarial if low >= 0 and high <= 1 else adversarial.clamp(0, 1)


Call = Callable[[Callable[..., Tensor], tuple[Any, ...], Randomness], Tensor]


def _way_to_pass_generator(attack: Callable[..., Tensor]) -> Call:
    if isinstance(attack, type) or not callable(attack):
        raise ArgumentError("attack", "a function (model, inputs, labels, generator) -> images", repr(attack))
    calls: list[tuple[Call, tuple[object, ...], dict[str, object]]] = [
        (lambda f, three, generator: f(*three, generator=generator), (0, 0, 0), {"generator": 0}),
        (lambda f, three, generator: f(*three, generator), (0, 0, 0, 0), {}),
        (lambda f, three, generator: f(*three), (0, 0, 0), {}),  # noqa: ARG005
    ]
    try:
        signature = inspect.signature(attack)
    except (TypeError, ValueError):  # some functions written in C have none
        return calls[0][0]
    for call, positional, by_name in calls:
        try:
            signature.bind(*positional, **by_name)
        except TypeError:
            continue
        return call
    expected = "a function (model, inputs, labels, generator) -> images"
    raise ArgumentError("attack", expected, f"{name_of(attack)}{signature}")
