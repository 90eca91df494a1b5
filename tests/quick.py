"""Cases of which `make test` takes the first ones alone, and `make test-all` takes all."""

from collections.abc import Iterable

import pytest


def first(count, cases: Iterable):
    """Mark all cases but the first `count` as slow."""
    return [
        case
        if number < count
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for number, case in enumerate(cases)
    ]
