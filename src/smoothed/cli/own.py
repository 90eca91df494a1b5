"""Attacks, votes, noises, data and networks that the user names on the command line, as public functions take them."""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, cast

from torch import nn

from smoothed.attacks import Attack
from smoothed.errors import ArgumentError, SmoothedError
from smoothed.smoothing.config import NoiseConfig
from smoothed.smoothing.input_noise import NOISES, Noise, ScaledNoise
from smoothed.smoothing.votes import VOTES, BoundedVote, Vote
from smoothed.utils.checks import check_choice
from smoothed.utils.imports import error_summary, import_object, is_object_name

_EXPECTED = {
    "attack": "a function (model, inputs, labels, generator)",
    "noise": "a function (inputs, generator) or (inputs)",
    "vote": "a function from logits to scores",
    "votes": "functions from logits to scores",
}


def own_attack(name: str) -> str | Attack:
    """The name of an attack as it is; the attack of `package.module:name`, a function.

    Raises:
        ArgumentError: there is no such object, or it cannot be called.
    """
    return _callable(name, "attack") if is_object_name(name) else name


def own_vote(name: str, argument: str = "vote") -> str | Vote:
    """The name of a vote as it is; the vote of `package.module:name`, a function from logits to scores.

    Raises:
        ArgumentError: there is no such vote or object, or it cannot be called.
    """
    if is_object_name(name):
        return _callable(name, argument)
    return check_choice(name, VOTES, argument)


def own_votes(chosen: Iterable[str]) -> tuple[str | Vote, ...]:
    """The votes of several names."""
    return tuple(own_vote(name, "votes") for name in chosen)


def own_noises(
    noise: str | None,
    sigmas: Sequence[float] | None,
    sigmas_normalized: Sequence[float] | None,
    *,
    remedy: str = "without --sigma, it is taken for the noise itself",
) -> list[NoiseConfig] | None:
    """The noises of `--noise`, `--sigma` and `--sigma-normalized`; None if they leave the choice to the checkpoint.

    `package.module:name` is a function of a deviation that returns noise if deviations are given, and the noise itself
    otherwise. `remedy` says what to do where it is no function of a deviation.

    Raises:
        ArgumentError: both units are given, a deviation is out of range, or there is no such noise.
    """
    if sigmas is not None and sigmas_normalized is not None:
        raise ArgumentError("sigma", "either --sigma or --sigma-normalized", "both")
    for sigma in sigmas or ():
        if sigma > 1:
            hint = "it is in pixel units of [0, 1]; for the paper's unit use --sigma-normalized"
            raise ArgumentError("sigma", "a standard deviation of at most 1", f"{sigma:g}", hint)
    for name, values in (("sigma", sigmas), ("sigma-normalized", sigmas_normalized)):
        if values is not None and len(set(values)) != len(values):
            raise ArgumentError(name, "no repeated values", ",".join(f"{value:g}" for value in values))
    if noise is not None and is_object_name(noise):
        if sigmas_normalized is not None:
            raise ArgumentError("sigma-normalized", "a noise of this package beside it", f"--noise {noise}")
        if sigmas is None:
            return [NoiseConfig(custom=_callable(noise, "noise"))]
        make = own_noise_factory(noise, remedy)
        return [NoiseConfig(sigma=sigma, custom=make(sigma)) for sigma in sigmas]
    law = check_choice(noise or "gaussian", NOISES, "noise")
    if sigmas is not None:
        return [NoiseConfig(sigma=sigma, law=law) for sigma in sigmas]
    if sigmas_normalized is not None:
        return [NoiseConfig(sigma_normalized=sigma, law=law) for sigma in sigmas_normalized]
    return None


def own_noise_factory(name: str, remedy: str) -> Callable[[float], Noise]:
    """The function of a deviation, `package.module:name`, whose noises have this name.

    Args:
        name: `package.module:name`.
        remedy: what to do where it is no such function, for errors.

    Raises:
        ArgumentError: there is no such function; when called, it raises an error or returns no noise.
    """
    factory = _callable(name, "noise", rename=False)

    def make(sigma: float) -> Noise:
        expected = "with --sigma, a function of a deviation that returns the noise"
        try:
            made = factory(sigma)
        except Exception as error:  # the user's code may raise any error
            raise ArgumentError("noise", expected, f"{name}, which raises {error_summary(error)}", remedy) from error
        if not callable(made):
            got = f"{name}, which returns an object of type {type(made).__name__}"
            raise ArgumentError("noise", expected, got, remedy)
        return named(made, name, "noise")

    return make


def own_data(text: str, argument: str = "data") -> Any:  # noqa: ANN401 - whatever `as_images` takes
    """The name of a data set or folder as it is; what `package.module:name` returns, called without arguments.

    Raises:
        ArgumentError: there is no such object, or it raises an error or returns None.
    """
    if not is_object_name(text):
        return text
    found = import_object(text, argument)
    # A Dataset or another object with items is data already, even if it can be called.
    if not callable(found) or (hasattr(found, "__getitem__") and not isinstance(found, type)):
        return found
    expected = "a function without arguments that returns data"
    try:
        data = found()
    except Exception as error:  # the user's code may raise any error
        raise ArgumentError(argument, expected, f"{text}, which raises {error_summary(error)}") from error
    if data is None:
        raise ArgumentError(argument, expected, f"{text}, which returns None")
    return data


def named(function: Any, name: str, argument: str) -> Any:  # noqa: ANN401 - a callable of any kind
    """The same callable with `name` as its `__name__`, which tables show, and with errors that name `argument`.

    Noises with a law and networks are returned as they are.
    """
    if isinstance(function, ScaledNoise | nn.Module):
        return function
    if isinstance(function, BoundedVote):
        return BoundedVote(named(function.function, name, argument), function.bound)

    @wraps(function, updated=())
    def renamed(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        try:
            return function(*arguments, **options)
        except SmoothedError:
            raise
        except Exception as error:  # the user's code may raise any error
            raise ArgumentError(
                argument, _EXPECTED[argument], f"{name}, which raises {error_summary(error)}"
            ) from error

    renamed.__name__ = name
    return renamed


def _callable(name: str, argument: str, *, rename: bool = True) -> Callable[..., Any]:
    found = import_object(name, argument)
    if not callable(found):
        raise ArgumentError(argument, _EXPECTED[argument], f"{name}, an object of type {type(found).__name__}")
    return cast("Callable[..., Any]", named(found, name, argument) if rename else found)
