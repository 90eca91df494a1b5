"""Words of the command line that are not plain numbers: `8/255`, `25m`, `1,8,64`."""

import re
from collections.abc import Iterable
from fractions import Fraction

import typer

from smoothed.errors import ArgumentError

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def fraction(text: str | float) -> float:
    """A number or a fraction of two: `0.03`, `8/255`."""
    try:
        return float(Fraction(str(text).replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"expected a number or a fraction such as 8/255, got {text}") from None


def duration(text: str | float) -> float:
    """Seconds from `90`, `90s`, `25m`, `1.5h`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(text).strip())
    if match is None:
        raise typer.BadParameter(f"expected a time such as 90s, 25m or 1.5h, got {text}")
    return float(match[1]) * _SECONDS[match[2]]


def names(choices: Iterable[str]) -> str:
    """The names of a fixed set, for a help text."""
    return ", ".join(choices)


def numbers(text: str, option: str) -> list[float]:
    """The numbers of a comma-separated list; `option` is what to call it in the error."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ArgumentError(option, "numbers separated by commas", repr(text)) from None


def integers(text: str, option: str) -> list[int]:
    """The whole numbers of a comma-separated list; `option` is what to call it in the error."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ArgumentError(option, "whole numbers separated by commas", repr(text)) from None
