"""Nothing is cut in a terminal of 80 columns: long names of the user's own functions, headers and numbers."""

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from small_results import small_result
from smoothed.evaluation.paper_protocol.rows import ONE_DRAW
from smoothed.report.fitted import FittedTable, Words, wrapped
from smoothed.report.result import result_parts

# 30 characters each.
ATTACK = "mypackage.attacks:brighten_all"
VOTE = "mypackage.votes:trimmed_median"
NOISE = "mypackage.noises:salted_pepper"


def text(*parts, width=80, soft_wrap=False):
    console = Console(width=width, file=io.StringIO())
    for part in parts:
        console.print(part, soft_wrap=soft_wrap)
    return console.file.getvalue()


def named(kind):
    """A small result in which the attack, the vote, the noise and the model have names of 30 characters."""
    result = small_result(kind)
    names = {"attack": ATTACK, "vote": VOTE, "noise": NOISE, "model": VOTE, "steps": None}
    rows = [
        row | {name: long for name, long in names.items() if name in row and row[name] != ONE_DRAW}
        for row in result.rows
    ]
    setting = result.setting | {"votes": [VOTE, "prediction"], "attack": ATTACK, "steps": None}
    return replace(result, rows=rows, setting=setting, model=result.model | {"name": NOISE})


def is_spelled(name, lines, number):
    """Whether words of this line and of the next ones make up a name that is broken after separators only."""
    words = {word.strip(",*") for word in lines[number].split()} if number < len(lines) else ()
    return name in words or any(
        name.startswith(word) and word[-1] in ".:_" and is_spelled(name[len(word) :], lines, number + 1)
        for word in words
        if word
    )


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("evaluate", [ATTACK, VOTE]),
        ("worst-case", [ATTACK, VOTE]),
        ("sweep", [ATTACK, VOTE, NOISE]),
        ("certify", [VOTE]),
        ("examples", [ATTACK, VOTE]),
    ],
)
def test_names_of_thirty_characters_can_be_read(kind, names):
    parts = result_parts(named(kind))
    tables = [part for part in parts if isinstance(part, FittedTable)]
    for table in tables:
        table.heading = "a title"  # the names are in the cells as well
    shown = text(*tables)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    whole = text(*result_parts(named(kind)))
    assert "…" not in whole
    for name in names:
        assert any(is_spelled(name, whole.splitlines(), number) for number in range(whole.count("\n")))
    in_cells = [name for name in names if kind != "certify" and name in text(*tables, width=400)]
    for name in in_cells:
        assert any(is_spelled(name, shown.splitlines(), number) for number in range(shown.count("\n")))
    numbers = re.findall(r"\d+\.\d+-\d+\.\d+", text(*tables, width=400))
    assert re.findall(r"\d+\.\d+-\d+\.\d+", shown) == numbers


def test_headers_and_long_names_are_wrapped_before_numbers():
    table = FittedTable("title")
    table.add_column(Words("name"))
    table.add_column("mean and deviation", justify="right")
    table.add_row(Words("package.module:function"), "66.67 ± 0.00")
    shown = text(table, width=31).splitlines()
    assert any("66.67 ± 0.00" in line for line in shown)
    words = [line.split()[1] for line in shown if "│" in line]
    assert "".join(words) == "package.module:function"
    table.add_column("95 % interval", justify="right")
    table.add_row("short", "1.00 ± 0.00", "100.0-100.0")
    narrower = text(table, width=42)
    assert "100.0-100.0" in narrower
    assert "66.67 ±" in narrower
    assert "66.67 ± 0.00" not in narrower
    assert max(map(len, narrower.splitlines())) <= 42


def test_a_title_is_wider_than_its_table_and_stays_in_one_line_outside_a_terminal():
    table = FittedTable("a title that is longer than the table " * 3)
    table.add_column("M")
    table.add_row("1")
    assert len(text(table, width=80).splitlines()[0]) > 60
    assert len(text(table, soft_wrap=True).splitlines()[0]) > 80


def test_lines_are_broken_between_words_and_after_separators():
    assert wrapped("one two three", 7) == ["one two", "three"]
    assert wrapped("mine.attacks:brighten all", 14) == ["mine.attacks:", "brighten all"]
    assert wrapped("PGD-7, L-inf 8/255", 10) == ["PGD-7,", "L-inf", "8/255"]
    assert wrapped("mine:brighten_all", 14) == ["mine:", "brighten_all"]
    assert wrapped("mine:brighten_all", 10) == ["mine:", "brighten_", "all"]
    assert wrapped("abcdefgh", 3) == ["abc", "def", "gh"]
    assert wrapped("", 5) == [""]


@given(st.text("ab.:_ ", max_size=40), st.integers(1, 12))
def test_wrapping_loses_nothing_and_keeps_the_width(line, width):
    lines = wrapped(line, width)
    assert max(map(len, lines)) <= width
    assert "".join("".join(lines).split()) == "".join(line.split())
