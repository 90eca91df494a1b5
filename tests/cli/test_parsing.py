"""Words of the command line."""

import pytest
import typer

from smoothed.cli.parsing import duration, fraction, integers, numbers
from smoothed.errors import ArgumentError


def test_fractions():
    assert [fraction(text) for text in ("8/255", "0.03", "1e-2", 0.5)] == [8 / 255, 0.03, 0.01, 0.5]
    for text in ("8/0", "eight", ""):
        with pytest.raises(typer.BadParameter, match="expected a number or a fraction"):
            fraction(text)


def test_durations():
    assert [duration(text) for text in ("90", "90s", "25m", "1.5h")] == [90, 90, 1500, 5400]
    for text in ("soon", "-3s", "3d"):
        with pytest.raises(typer.BadParameter, match="expected a time"):
            duration(text)


def test_lists():
    assert numbers("0,0.5,1e-1", "sigma") == [0, 0.5, 0.1]
    assert integers("1,8", "num-samples") == [1, 8]
    with pytest.raises(ArgumentError, match="num-samples: expected whole numbers separated by commas, got '1,,8'"):
        integers("1,,8", "num-samples")
