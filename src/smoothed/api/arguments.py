"""Checks of the arguments of the public functions by name, before any work."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from smoothed.attacks import EVALUATION_ATTACKS
from smoothed.attacks.ball import BALLS
from smoothed.attacks.query_based.queries import SEES
from smoothed.data.split import SPLITS
from smoothed.errors import ArgumentError
from smoothed.evaluation.paper_protocol.rows import NO_ATTACK
from smoothed.smoothing.config import NoiseConfig
from smoothed.smoothing.votes import VOTES
from smoothed.utils.checks import (
    check_choice,
    check_flag,
    check_not_negative,
    check_not_negative_integer,
    check_positive,
    check_seed,
)
from smoothed.utils.devices import PRECISIONS
from smoothed.utils.distributed import Processes
from smoothed.utils.files import check_path, require_writable

ArgumentCheck = Callable[[Any, str], object]
"""A function of the value and the name of an argument, which raises `ArgumentError` for a wrong value."""


def check_arguments(given: Mapping[str, Any], **other: ArgumentCheck) -> None:
    """Check the arguments of a public function, each by its name.

    Args:
        given: values by name. Names without a check here are left to what uses them.
        other: checks in place of those of this module, by name.

    Raises:
        ArgumentError: an argument has a wrong type or is out of range.
        OutputError: a file can't be written.
    """
    for name, value in given.items():
        if check := other.get(name) or ARGUMENT_CHECKS.get(name):
            check(value, name)


def optional(check: ArgumentCheck) -> ArgumentCheck:
    """The same check, which lets None pass."""
    return lambda value, name: None if value is None else check(value, name)


def several(check: ArgumentCheck) -> ArgumentCheck:
    """A check of one value or of several, of which there is at least one."""

    def check_each(values: Any, name: str) -> None:  # noqa: ANN401
        values = as_tuple(values)
        if not values:
            raise ArgumentError(name, "at least one value", "none")
        for value in values:
            check(value, name)

    return check_each


def one_of(*choices: str) -> ArgumentCheck:
    """A check that a value is one of `choices`."""
    return lambda value, name: check_choice(value, choices, name)


def as_tuple(values: Any) -> tuple[Any, ...]:  # noqa: ANN401 - numbers, names or functions
    """Several values as a tuple, or a single one: a number, a name or a function."""
    if isinstance(values, Iterable) and not isinstance(values, str) and not callable(values):
        return tuple(values)
    return (values,)


def check_vote(value: object, name: str) -> None:
    """Raise `ArgumentError` unless `value` is the name of a vote or a callable."""
    if not callable(value):
        check_choice(value, VOTES, name)  # pyright: ignore[reportArgumentType] - any value may be tried


def check_writable(value: object, name: str) -> None:
    """Raise an error unless `value` is the path of a file that can be written."""
    require_writable(check_path(value, name))


def _check_attack(value: object, name: str) -> None:
    if not callable(value):
        check_choice(value, (*EVALUATION_ATTACKS, NO_ATTACK), name)  # pyright: ignore[reportArgumentType]


def _check_folder(value: object, name: str) -> None:
    path = check_path(value, name)
    if path.exists() and not path.is_dir():
        raise ArgumentError(name, "a folder", f"the file {path}")
    require_writable(path / "file")


def _check_name(value: object, name: str) -> None:
    if not isinstance(value, str):
        raise ArgumentError(name, "a str", repr(value))


def _check_keys(value: object, name: str) -> None:
    if not isinstance(value, tuple | list) or len(value) != 2 or not all(isinstance(key, str | int) for key in value):
        raise ArgumentError(name, "a pair (key of the image, key of the label) of names or positions", repr(value))


def _check_sources(value: object, name: str) -> None:
    expected = "a dict of networks (torch.nn.Module) by their names"
    if not isinstance(value, Mapping):
        raise ArgumentError(name, expected, repr(value))
    for key, network in value.items():
        if not isinstance(key, str) or not isinstance(network, nn.Module):
            got = f"{key!r}: an object of type {type(network).__name__}"
            raise ArgumentError(name, expected, got, "smoothed.load makes a network of any callable")


def _check_noises(value: object, name: str) -> None:
    expected = "a list of noises, such as [smoothed.Gaussian(0.06)]"
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ArgumentError(name, expected, repr(value))
    for noise in value:
        if noise is not None and not isinstance(noise, NoiseConfig) and not callable(noise):
            raise ArgumentError(name, expected, f"{noise!r} in it")


def _check_processes(value: object, name: str) -> None:
    if not isinstance(value, Processes):
        raise ArgumentError(name, "a smoothed.Processes", repr(value))


def _check_function(value: object, name: str) -> None:
    if not callable(value):
        raise ArgumentError(name, "a function", repr(value))


ARGUMENT_CHECKS: dict[str, ArgumentCheck] = {
    "attack": _check_attack,
    "eps": optional(check_not_negative),
    "norm": one_of(*BALLS),
    "steps": check_positive,
    "eot_samples": check_positive,
    "max_queries": check_positive,
    "sees": one_of(*SEES),
    "sources": optional(_check_sources),
    "noises": optional(_check_noises),
    "votes": optional(several(check_vote)),
    "num_samples": optional(several(check_positive)),
    "base": check_flag,
    "certified": check_flag,
    "compiled": check_flag,
    "votes_per_image": check_positive,
    "split": one_of(*SPLITS),
    "images": optional(check_positive),
    "keys": optional(_check_keys),
    "name": optional(_check_name),
    "runs": check_positive,
    "seed": check_seed,
    "precision": one_of(*PRECISIONS),
    "chunk_size": check_positive,
    "keep_images": check_not_negative_integer,
    "out": optional(_check_folder),
    "processes": _check_processes,
    "on_batch": optional(_check_function),
    "on_progress": optional(_check_function),
    "command": optional(_check_name),
}
