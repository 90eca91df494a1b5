"""Words of the command line that are not plain numbers: `8/255`, `25m`, `1,8,64`, `0:0.5:0.01`, `1,2,4,..,512`."""

import re
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import pairwise

import typer

from smoothed.errors import ArgumentError

MOST_VALUES = 10_000
"""Of one list: beyond that a range is a slip of the hand."""

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
    """The numbers of a comma-separated list, where `0:0.5:0.1` and `1,2,4,..,64` stand for all that they mean.

    A range `FIRST:LAST:STEP` has both ends. `..` goes on as the three numbers before it do (or the two, if there are no
    more), by adding or by multiplying, up to the number behind it. Steps are exact: the 29th of 0.01 is 0.29.

    Args:
        text: numbers, and fractions such as 8/255.
        option: what to call it in the error.

    Raises:
        ArgumentError: something else, a range whose steps miss its end, or a `..` that can be read in no or two ways.
    """
    return [float(value) for value in _listed(text, option, "numbers", _rational)]


def integers(text: str, option: str) -> list[int]:
    """The whole numbers of a list as `numbers` reads it.

    Raises:
        ArgumentError: likewise.
    """
    return [int(value) for value in _listed(text, option, "whole numbers", _whole)]


def choices(text: str, option: str, allowed: Iterable[str]) -> tuple[str, ...]:
    """The names of a comma-separated list, or all that there are for `all`.

    Raises:
        ArgumentError: a name that is not allowed.
    """
    allowed = tuple(allowed)
    chosen = allowed if text.strip() == "all" else tuple(part.strip() for part in text.split(","))
    for name in chosen:
        if name not in allowed:
            raise ArgumentError(option, f"all, or some of {names(allowed)}", repr(name))
    return chosen


def _rational(text: str) -> Fraction:
    """Exactly the number; an exponent of many digits would fill the memory."""
    if re.search(r"e[+-]?\d{4}", text, re.IGNORECASE):
        raise ValueError(text)
    value = Fraction(text.strip())
    float(value)  # raises OverflowError, an ArithmeticError, on what no float can be
    return value


def _whole(text: str) -> Fraction:
    value = _rational(text)
    if value.denominator != 1:
        raise ValueError(text)
    return value


def _listed(text: str, option: str, what: str, read: Callable[[str], Fraction]) -> list[Fraction]:
    def number(part: str) -> Fraction:
        try:
            return read(part)
        except (ValueError, ArithmeticError):
            raise ArgumentError(option, f"{what} separated by commas", repr(text)) from None

    values, parts = list[Fraction](), iter(text.split(","))
    for part in parts:
        if part.strip() in {"..", "...", "…"}:
            values += _continued(values[-3:], number(next(parts, "")), option, text)
        elif ":" in part:
            values += _range([number(end) for end in part.split(":")], option, part)
        else:
            values.append(number(part))
        if len(values) > MOST_VALUES:
            raise ArgumentError(option, f"at most {MOST_VALUES} values", repr(text))
    return values


def _range(ends: list[Fraction], option: str, text: str) -> list[Fraction]:
    """All of `FIRST:LAST:STEP`."""
    if len(ends) != 3:
        raise ArgumentError(option, "a range FIRST:LAST:STEP such as 0:0.5:0.05", repr(text))
    first, last, step = ends
    way = list(_up_to(first, last, lambda value: value + step))
    if way[-1] != last and len(way) <= MOST_VALUES:
        near = f"its steps come to {float(way[-1]):g}" if len(way) > 1 else "its step does not lead there"
        raise ArgumentError(option, "a range whose steps reach its end", repr(text), near)
    return way


def _continued(before: list[Fraction], last: Fraction, option: str, text: str) -> list[Fraction]:
    """What `..` stands for between the numbers `before` and `last`, and `last`."""
    ways = list[list[Fraction]]()
    if len(before) > 1:
        previous, start = before[-2:]
        steps = [lambda value: value + (start - previous)]
        if previous:
            steps.append(lambda value: value * (start / previous))
        for step in steps:
            way = list(_up_to(start, last, step))
            fits = all(step(one) == other for one, other in pairwise(before))
            if fits and way[-1] == last and way[1:] not in ways:
                ways.append(way[1:])
    if len(ways) == 1:
        return ways[0]
    if ways:
        raise ArgumentError(option, "three numbers before ..", repr(text), "two go on by adding and by multiplying")
    raise ArgumentError(
        option, "a .. that goes on by equal steps or factors to the number behind it, such as 1,2,4,..,64", repr(text)
    )


def _up_to(first: Fraction, last: Fraction, step: Callable[[Fraction], Fraction]) -> Iterator[Fraction]:
    """`first` and what follows it by `step`, as long as it comes nearer to `last` and does not pass it."""
    value, up = first, last >= first
    for _ in range(MOST_VALUES + 1):
        yield value
        following = step(value)
        if following == value or (following > value) != up or (following > last if up else following < last):
            return
        value = following
