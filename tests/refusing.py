"""Tables of what is refused, each with its message."""

import pytest

from smoothed.errors import ArgumentError


def check_refusals(call, cases, error=ArgumentError):
    """Check that `call(**arguments)` raises `error` with the message (a pattern) of each case (arguments, message)."""
    for arguments, message in cases:
        try:
            with pytest.raises(error, match=message):
                call(**arguments)
        except (AssertionError, pytest.fail.Exception) as failure:
            raise AssertionError(f"expected {arguments} to be refused with {message!r}") from failure
