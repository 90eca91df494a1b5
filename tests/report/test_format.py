"""Numbers and words as text."""

import ast
import re
from pathlib import Path

import pytest

import smoothed
from small_results import KINDS, small_result
from smoothed.evaluation.results import Accuracy
from smoothed.report.format import format_accuracy, format_percent


def test_shares_in_percent():
    assert format_percent(1.0) == "100.0 %"
    assert format_percent(0.61996, 2) == "62.00 %"
    assert format_accuracy(Accuracy(0.62, (0.522, 0.709), 0.0)) == "62.0 % (52.2-70.9)"


@pytest.mark.parametrize("kind", KINDS)
def test_every_result_has_a_space_before_the_percent_sign(kind):
    shown = str(small_result(kind))
    assert not re.search(r"\d%", shown)


def test_texts_are_in_british_spelling():
    """Outside of names such as `sigma_normalized` and `Gaussian.normalized(...)`, a text says `normalised`."""
    american = re.compile(r"(?<![\w.`-])normalized(?![\w`(-])")
    found = [
        (path.name, node.value)
        for path in Path(smoothed.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and american.search(node.value)
    ]
    assert found == []
