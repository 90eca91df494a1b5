"""Values of options that are not plain numbers: `8/255`, `25m`, `1,8,64`, `0:0.5:0.01`, `1,2,4,..,512`."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import typer

from smoothed.errors import ArgumentError
from smoothed.utils.imports import is_object_name

MOST_VALUES = 10_000
"""Largest length of a list. A longer range is taken for a typing error."""

_SECONDS_PER_UNIT = {"": 1, "s": 1, "m": 60, "h": 3600}


def fraction(text: str | float) -> float:
    """The value of a number or of a fraction: `0.03`, `8/255`."""
    try:
        return float(Fraction(str(text).replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"expected a number or a fraction such as 8/255, got {text}") from None


def duration(text: str | float) -> float:
    """The seconds of a duration: `90`, `90s`, `25m`, `1.5h`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(text).strip())
    if match is None:
        raise typer.BadParameter(f"expected a time such as 90s, 25m or 1.5h, got {text}")
    return float(match[1]) * _SECONDS_PER_UNIT[match[2]]


def names(choices: Iterable[str]) -> str:
    """The names of a set of choices, for a help text."""
    return ", ".join(choices)


def numbers(text: str, option: str) -> list[float]:
    """The numbers of a comma-separated list, with ranges such as `0:0.5:0.1` and series such as `1,2,4,..,64`.

    A range `FIRST:LAST:STEP` includes both ends. The dots of a series continue the arithmetic or geometric progression
    of the two or three numbers before them up to the number after them. Steps are exact: the 29th of 0.01 is 0.29.

    Args:
        text: numbers and fractions such as 8/255, ranges and series, separated by commas.
        option: name of the option, for errors.

    Raises:
        ArgumentError: text that is none of these, a range whose steps miss its end, or a series that can be continued
            in no way or in two ways.
    """
    return [float(value) for value in _listed(text, option, "numbers", _rational)]


def integers(text: str, option: str) -> list[int]:
    """The whole numbers of a list, in the format of `numbers`.

    Raises:
        ArgumentError: as `numbers`, or a number that is not whole.
    """
    return [int(value) for value in _listed(text, option, "whole numbers", _whole)]


def choices(text: str, option: str, allowed: Iterable[str]) -> tuple[str, ...]:
    """The names of a comma-separated list; `all` stands for every allowed name.

    Names of users' own objects, `package.module:name`, are allowed, too.

    Raises:
        ArgumentError: a name that is not allowed.
    """
    allowed = tuple(allowed)
    chosen = allowed if text.strip() == "all" else tuple(part.strip() for part in text.split(","))
    for name in chosen:
        if name not in allowed and not is_object_name(name):
            similar = difflib.get_close_matches(name, allowed)
            hint = f"did you mean {' or '.join(similar)}?" if similar else ""
            raise ArgumentError(option, f"all, or some of {names(allowed)}", repr(name), hint)
    return chosen


def _rational(text: str) -> Fraction:
    """The exact value of a number. Huge exponents are refused, because an exact value would fill the memory."""
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
    """The values of the range FIRST:LAST:STEP."""
    if len(ends) != 3:
        raise ArgumentError(option, "a range FIRST:LAST:STEP such as 0:0.5:0.05", repr(text))
    first, last, step = ends
    way = list(_up_to(first, last, lambda value: value + step))
    if way[-1] != last and len(way) <= MOST_VALUES:
        near = f"its steps reach {float(way[-1]):g}" if len(way) > 1 else "its step leads away from the end"
        raise ArgumentError(option, "a range whose steps reach its end", repr(text), near)
    return way


def _continued(before: list[Fraction], last: Fraction, option: str, text: str) -> list[Fraction]:
    """The values of a series after the numbers `before`, up to and including `last`."""
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
        raise ArgumentError(
            option, "three numbers before ..", repr(text), "two numbers have both a sum and a factor that fit"
        )
    raise ArgumentError(
        option, "a series whose equal steps or factors reach the number after .., such as 1,2,4,..,64", repr(text)
    )


def _up_to(first: Fraction, last: Fraction, step: Callable[[Fraction], Fraction]) -> Iterator[Fraction]:
    """The values from `first` on, each the `step` of the one before, that approach `last` without passing it."""
    value, up = first, last >= first
    for _ in range(MOST_VALUES + 1):
        yield value
        following = step(value)
        if following == value or (following > value) != up or (following > last if up else following < last):
            return
        value = following


def statistics(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel: `0.485,0.456,0.406/0.229,0.224,0.225`.

    Raises:
        ArgumentError: text of another form.
    """
    parts = text.split("/")
    try:
        mean, std = (tuple(float(number) for number in part.split(",")) for part in parts)
    except ValueError:
        expected = "MEAN/STD with one number for each channel, such as 0.485,0.456,0.406/0.229,0.224,0.225"
        raise ArgumentError("normalize", expected, repr(text)) from None
    return mean, std


def keys(text: str) -> tuple[Any, Any]:
    """Keys of image and label, `image,label`, or their positions, `0,1`.

    Raises:
        ArgumentError: there are not two.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(parts):
        raise ArgumentError("data-keys", "two keys separated by a comma, such as image,label", repr(text))
    image, label = (int(part) for part in parts) if all(part.isdecimal() for part in parts) else parts
    return image, label
