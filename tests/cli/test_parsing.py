"""Words of the command line."""

import re

import pytest
import typer

from smoothed.cli.parsing import choices, duration, fraction, integers, keys, numbers, statistics
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:0.5:0.01", [number / 100 for number in range(51)]),  # 0.29, not 0 + 29 * 0.01 = 0.29000000000000004
        ("0:0.3:0.1", [0, 0.1, 0.2, 0.3]),
        ("0.5:0:-0.25", [0.5, 0.25, 0]),
        ("1:1:1", [1]),
        ("0:2/255:1/255, 0.5", [0, 1 / 255, 2 / 255, 0.5]),
        ("0,0.05,..,0.2", [0, 0.05, 0.1, 0.15, 0.2]),
        ("1,2,4,..,512", [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]),
        ("0,1,2,4,..,16", [0, 1, 2, 4, 8, 16]),
        ("64,32,16,...,4", [64, 32, 16, 8, 4]),
        ("1,2,..,10", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),  # factors of 2 pass by 10
        ("1,10,..,1000", "two numbers have"),  # by tens or by nines
        ("1,2,..,8", "two numbers have both a sum and a factor that fit"),
        ("1,2,4,8,..,20", "equal steps or factors reach the number after .."),
        ("1,2,4,7,..,9", "equal steps or factors reach the number after .."),
        ("5,..,9", "equal steps or factors reach the number after .."),
        ("1,-2,4,..,16", "equal steps or factors reach the number after .."),
        ("1,2,4,..", "numbers separated by commas, got '1,2,4,..'"),
        ("0:0.5:0.2", "a range whose steps reach its end, got '0:0.5:0.2'; its steps reach 0.4"),
        ("0:1:-1", "a range whose steps reach its end, got '0:1:-1'; its step leads away from the end"),
        ("0:1:0", "leads away"),
        ("0:1", "a range FIRST:LAST:STEP such as"),
        ("0:1:1e-9", "at most 10000 values, got '0:1:1e-9'"),
        ("1e400", "numbers separated by commas"),
        ("1e-99999999", "numbers separated by commas"),
        ("nan", "numbers separated by commas"),
        ("", "numbers separated by commas"),
    ],
)
def test_ranges_and_continuations(text, expected):
    if isinstance(expected, list):
        assert numbers(text, "sigma") == expected
    else:
        with pytest.raises(ArgumentError, match=f"^sigma: expected .*{re.escape(expected)}"):
            numbers(text, "sigma")


def test_whole_numbers_have_ranges_too():
    assert integers("1,2,4,..,64,100", "num-samples") == [1, 2, 4, 8, 16, 32, 64, 100]
    assert integers("5:20:5", "num-samples") == [5, 10, 15, 20]
    for text in ("1:2:0.5", "1,1.5"):
        with pytest.raises(ArgumentError, match="num-samples: expected whole numbers separated by commas"):
            integers(text, "num-samples")


def test_choices():
    assert choices("all", "votes", {"prediction": 1, "soft": 2}) == ("prediction", "soft")
    assert choices("soft, prediction", "votes", ["prediction", "soft"]) == ("soft", "prediction")
    with pytest.raises(ArgumentError, match="votes: expected all, or some of prediction, soft, got 'hard'"):
        choices("soft,hard", "votes", ["prediction", "soft"])


def test_statistics_and_keys():
    assert statistics("0.5,0.25/0.2,1") == ((0.5, 0.25), (0.2, 1.0))
    assert statistics("0.5/0.2") == ((0.5,), (0.2,))
    for text in ("0.5", "0.5/", "a/b", "1/2/3"):
        with pytest.raises(ArgumentError, match="normalize: expected MEAN/STD with one number for each channel"):
            statistics(text)
    assert (keys("img, fine_label"), keys("0,1")) == (("img", "fine_label"), (0, 1))
    for text in ("image", "a,b,c", "image,"):
        with pytest.raises(ArgumentError, match="data-keys: expected two keys separated by a comma"):
            keys(text)
