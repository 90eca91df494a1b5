"""The numbers in the declarations are those that the paper prints, all of them."""

import re
from pathlib import Path

import pytest

from smoothed.paper.declaration import Published
from smoothed.paper.figures import FIGURES
from smoothed.paper.tables import TABLE_1, TABLE_2A, TABLE_2B, TABLE_3A, TABLE_3B, TABLE_4, TABLE_B1, TABLES

PAPER = Path(__file__).parents[3] / "shared/paper/paper.md"
NUMBER = re.compile(r"(\d+\.\d+)(?:\s*\\pm\s*(\d+\.\d+))?")


@pytest.fixture(scope="module")
def lines():
    """The lines of the paper's tables with the accuracies that each prints, as pairs of mean and deviation."""
    if not PAPER.is_file():
        pytest.skip("needs the paper's text beside the checkout")
    found = []
    for line in PAPER.read_text(encoding="utf-8").splitlines():
        if "\t" not in line:
            continue
        plain = re.sub(r"</?b>\s*", "", line)
        numbers = [(float(mean), float(std) if std else None) for mean, std in NUMBER.findall(plain)]
        found.append((plain, [number for number in numbers if number[0] > 10]))
    return found


def printed(published: Published):
    """The accuracies of a row in the order in which the paper prints them."""
    both = (published.clean, published.clean_std), (published.robust, published.robust_std)
    return [number for number in both if number[0] is not None]


def rows(table):
    """The rows that the paper has, each once."""
    found = {}
    for row in table.rows:
        if row.published is not None:
            found.setdefault((row.measurement and row.measurement.network, str(printed(row.published))), row)
    return list(found.values())


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_declared_number_is_printed(table, lines):
    for row in rows(table):
        wanted = printed(row.published)
        assert any(wanted == numbers[: len(wanted)] or wanted == numbers[-len(wanted) :] for _, numbers in lines) or (
            len(wanted) == 1 and any(wanted[0] in numbers for _, numbers in lines)
        ), row.label


def test_every_printed_number_is_declared(lines):
    declared = {number for table in TABLES for row in rows(table) for number in printed(row.published)}
    missing = {number for _, numbers in lines for number in numbers} - declared
    assert missing == set()


def test_every_table_has_as_many_rows_as_the_paper():
    counts = {table.name: len(rows(table)) for table in (TABLE_1, TABLE_2A, TABLE_2B, TABLE_3A, TABLE_3B, TABLE_4)}
    expected = {"table-1": 8, "table-2a": 8, "table-2b": 4, "table-3a": 4, "table-3b": 7, "table-4": 10}
    assert counts == expected
    assert len(rows(TABLE_B1)) == 5


def test_sigma_and_m_of_table_4_are_printed_beside_its_numbers(lines):
    for row in rows(TABLE_4):
        wanted = printed(row.published)
        prints = [line for line, numbers in lines if numbers == wanted]
        beside = max(prints, key=lambda line: "Prediction" in line)
        fields = [field.strip() for field in beside.split("\t")]
        if len(fields) > 4 and fields[2].isdigit():
            assert (int(fields[2]), float(fields[3])) == (row.num_samples, row.measurement.sigma), row.label
            assert fields[1].lower() == row.vote


def test_points_of_figures_are_those_of_table_4():
    of_table = {
        (row.measurement.network, row.num_samples, row.measurement.sigma): row.published
        for row in TABLE_4.rows
        if row.published is not None and row.vote == "prediction"
    }
    for curve in (curve for figure in FIGURES for panel in figure.panels for curve in panel.curves):
        for sigma, published in curve.published.items():
            assert of_table[curve.sources[0].network, curve.num_samples, sigma] == published
