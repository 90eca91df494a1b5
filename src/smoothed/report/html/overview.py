"""The page of any number of results: a list of them, then the verdict and the details of each, without images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smoothed.errors import ArgumentError
from smoothed.evaluation.results import Result
from smoothed.report.html.images import ListedResult
from smoothed.report.html.page import (
    LARGEST,
    check_report_name,
    drawn_charts,
    of_results,
    rendered_page,
    result_content,
)
from smoothed.utils.files import check_path, write_text

# The parts of a page that are left out, one after the other, until it is small enough.
LEFT_OUT: tuple[tuple[str, ...], ...] = ((), ("charts",), ("charts", "matrices"), ("charts", "matrices", "table"))


def write_overview(results: Mapping[str, Result], path: Path | str, *, title: str) -> Path:
    """Write the page of several results to a file, which is replaced atomically.

    Args:
        results: results by the names that the page gives them, at least one.
        path: file that ends in .html or .htm.
        title: heading of the page.

    Raises:
        ArgumentError: there are no results, or the name of the file has another ending.
        DataError: a result lacks fields of its kind.
        OutputError: the file can't be written.
    """
    check_path(path, "path")
    check_report_name(path, "path")
    return write_text(path, overview_page(results, title=title))


def overview_page(results: Mapping[str, Result], *, title: str) -> str:
    """The text of the page: results of any kinds, on any images, in the order of the mapping.

    A page that would be larger than `LARGEST` is written without charts, then without the matrices of attacks, then
    without the tables of all rows, and says so.

    Raises:
        ArgumentError: there are no results.
        DataError: a result lacks fields of its kind.
    """
    if not results:
        raise ArgumentError("results", "at least one result", "none")
    with of_results(*results.values()):
        listed = [ListedResult(each) for each in results.values()]
        charts = drawn_charts(listed)
        contents = [
            result_content(each, name, 0, of_result)
            for each, name, of_result in zip(listed, results, charts, strict=True)
        ]
    page = ""
    for parts in LEFT_OUT:
        page = rendered_page(
            title,
            [_without(content, parts) for content in contents],
            overview={"left_out": _words(parts)},
        )
        if len(page.encode("utf-8")) < LARGEST:
            break
    return page


def _without(content: Mapping[str, Any], parts: tuple[str, ...]) -> dict[str, Any]:
    return {**content, **{part: None if part == "table" else [] for part in parts}}


def _words(parts: tuple[str, ...]) -> str:
    """The left out parts in words; empty if nothing is left out."""
    names = {"charts": "charts", "matrices": "tables of attacks", "table": "tables of all rows"}
    return " and ".join(", ".join(names[part] for part in parts).rsplit(", ", 1))
