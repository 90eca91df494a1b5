"""Checks of the arguments of stopping rules."""

from numbers import Real

from smoothed.errors import ArgumentError


def check_delta(value: float) -> None:
    """Raise `ArgumentError` unless `value` is a probability in (0, 1)."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < 1:
        raise ArgumentError("delta", "a number in (0, 1)", repr(value))


def check_weight(value: float) -> None:
    """Raise `ArgumentError` unless `value` is a finite prior weight above 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < float("inf"):
        raise ArgumentError("prior_weight", "a finite number above 0", repr(value))
