"""The table of findings shows each check, its figures, what they mean and the verdict, at any width."""

import io

import pytest
from rich.console import Console

from smoothed.evaluation.gradient_masking import Figure, Finding
from smoothed.report.gradient_masking import gradient_masking_table

FINDINGS = [
    Finding("one", (Figure("white", "percent", 0.412), Figure("ahead", "points", -0.2, (-0.3, -0.1))), "Good.", "pass"),
    Finding("two", (), "Bad.", "suspicious"),
    Finding("three", (Figure("cosine", "number", 0.5),), "Who knows [sic].", "unclear"),
]


@pytest.mark.parametrize("width", [60, 120])
def test_everything_is_shown(width):
    console = Console(width=width, file=io.StringIO(), soft_wrap=True)
    console.print(gradient_masking_table(FINDINGS, "a title"))
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    words = " ".join(shown.replace("│", " ").split())
    for expected in ("a title", "white 41.2 %", "-20.0 points", "Good.", "suspicious", "cosine 0.50", "[sic]"):
        assert expected in words
