"""The page of one result, or of two side by side: one HTML file with style, script, data and pictures inside."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from smoothed.errors import ArgumentError, DataError, SmoothedError
from smoothed.evaluation.results import Result
from smoothed.report.html.calibration import calibration_charts
from smoothed.report.html.charts import Chart, DrawnChart, common_range, drawn
from smoothed.report.html.classifiers import main_classifier
from smoothed.report.html.comparison import ANY_ROW, ChosenRow, check_same_images, comparison_sentence, pair_lines
from smoothed.report.html.curves import result_charts
from smoothed.report.html.images import ListedResult, explorer
from smoothed.report.html.lights import RULE, lights
from smoothed.report.html.matrix import attack_matrices
from smoothed.report.html.tables import rows_of
from smoothed.report.html.verdict import (
    KINDS,
    gain_lines,
    headlines,
    provenance,
    shown_sigma_note,
    threat_model,
    verdict_sentence,
)
from smoothed.utils.files import check_path, write_text

SUFFIXES = (".html", ".htm")

LARGEST = 5_000_000
"""Size in bytes that a page stays below."""

MOST_IMAGES = 200
"""Largest number of images with pictures."""

# Numbers of images, largest sides of their pictures, and whether the attacked images of all classifiers are shown. They
# are tried in this order until the page is small enough.
SIZES = (
    (MOST_IMAGES, 128, True),
    (MOST_IMAGES, 64, True),
    (MOST_IMAGES, 64, False),
    (MOST_IMAGES, 32, False),
    *((images, 32, False) for images in (100, 50, 20, 0)),
)


def write_report(
    result: Result,
    path: Path | str,
    against: Result | None = None,
    rows: tuple[ChosenRow, ChosenRow] = (ANY_ROW, ANY_ROW),
) -> Path:
    """Write the page to a file, which is replaced atomically; see `Result.report`.

    `rows` are the rows of the two results that the paired test compares.
    """
    check_path(path, "path")
    check_report_name(path, "path")
    if against is not None and not isinstance(against, Result):
        raise ArgumentError("against", "a Result", f"an object of type {type(against).__name__}")
    return write_text(path, report_page(result, against, rows))


def check_report_name(path: Path | str, argument: str = "report") -> None:
    """Raise `ArgumentError` unless the name of a file is that of a page."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ArgumentError(argument, f"a file name that ends in {' or '.join(SUFFIXES)}", Path(path).name)


def report_page(
    result: Result, against: Result | None = None, rows: tuple[ChosenRow, ChosenRow] = (ANY_ROW, ANY_ROW)
) -> str:
    """The text of the page.

    Args:
        result: the result to show.
        against: a second result on the same images, which is shown beside it.
        rows: rows of the two results that the paired test compares.

    Raises:
        ArgumentError: the results are not on the same images, or one of them has no outcomes of images or no such row.
        DataError: a result lacks fields of its kind, for example because its file was edited.
    """
    results = [result] if against is None else [result, against]
    with of_results(*results):
        return _smallest(results, rows)


@contextmanager
def of_results(*results: Result) -> Iterator[None]:
    """Explain errors of missing fields, because results may be read from edited files.

    Raises:
        DataError: a result lacks fields of its kind.
    """
    try:
        yield
    except SmoothedError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        kinds = " or ".join(dict.fromkeys(result.kind for result in results))
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
        raise DataError(f"result: expected the fields of a result of the kind {kinds}, got others ({found})") from error


def _smallest(results: Sequence[Result], rows: tuple[ChosenRow, ChosenRow]) -> str:
    """The page with as many images, as large, as fit in a file below `LARGEST`."""
    if len(results) > 1:
        check_same_images(results[0], results[1])
    page = ""
    for images, side, all_attacked in SIZES:
        page = _rendered([ListedResult(each, all_attacked) for each in results], rows, images, side)
        if len(page.encode("utf-8")) < LARGEST:
            break
    return page


def _rendered(results: Sequence[ListedResult], rows: tuple[ChosenRow, ChosenRow], images: int, side: int) -> str:
    """The page with at most that many images, whose pictures have at most that side."""
    first = results[0].result
    title = f"{KINDS[first.kind]}: {first.model.get('name', 'a model')}"
    comparison = None
    if len(results) > 1:
        names = dict.fromkeys(str(each.result.model.get("name", "a model")) for each in results)
        title = f"Two results: {' and '.join(names)}"
        lines = pair_lines(first, results[1].result, rows)
        comparison = {"lines": lines, "sentence": comparison_sentence(lines)}
    charts = drawn_charts(results)
    contents = [
        result_content(each, "AB"[number] if len(results) > 1 else "", images, charts[number])
        for number, each in enumerate(results)
    ]
    return rendered_page(title, contents, comparison=comparison, shown=explorer(results, images, side))


def rendered_page(
    title: str,
    contents: Sequence[dict[str, Any]],
    *,
    comparison: dict[str, Any] | None = None,
    shown: dict[str, Any] | None = None,
    overview: dict[str, Any] | None = None,
) -> str:
    """Fill the template.

    Args:
        title: heading of the page.
        contents: what the page shows of each result (`result_content`).
        comparison: paired tests of two results; None for others.
        shown: data of the list of images (`explorer`); None for a page without one.
        overview: `left_out`, what the page of many results lacks; None for one result or two.
    """
    folder = files("smoothed.report.html")
    environment = Environment(
        loader=PackageLoader("smoothed.report", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        results=contents,
        comparison=comparison,
        overview=overview,
        explorer={"images": []} if shown is None else shown,
        rule=RULE,
        style=Markup(folder.joinpath("style.css").read_text(encoding="utf-8")),  # noqa: S704 - a file of this package
        script=Markup(folder.joinpath("script.js").read_text(encoding="utf-8")),  # noqa: S704
    )


def result_content(listed: ListedResult, letter: str, images: int, charts: list[DrawnChart]) -> dict[str, Any]:
    """What the template shows of one result.

    Args:
        listed: the result.
        letter: A or B beside another result, or its name among many; empty for a single one.
        images: largest number of images of a matrix.
        charts: its charts.
    """
    result = listed.result
    return {
        "letter": letter,
        "kind": result.kind,
        "what": KINDS[result.kind],
        "name": str(result.model.get("name", "a model")),
        "data": str(result.data.get("name", "")),
        "images": result.data.get("images"),
        "headlines": headlines(result),
        "shown_sigma": shown_sigma_note(result),
        "verdict": verdict_sentence(result),
        "gains": gain_lines(result),
        "threat": threat_model(result),
        "provenance": provenance(result),
        "table": rows_of(result),
        "matrices": attack_matrices(result, images or MOST_IMAGES),
        "lights": lights(result),
        "charts": charts,
    }


def drawn_charts(results: Sequence[ListedResult]) -> list[list[DrawnChart]]:
    """The charts of each result, on one y axis for all of them."""
    charts = list[list[Chart]]()
    for listed in results:
        charts.append(result_charts(listed.result))
        if listed.classifiers:
            main = listed.classifiers[main_classifier(listed.classifiers)]
            charts[-1] += calibration_charts(main, listed.result.tensors["labels"])
    shared = common_range([chart for of_result in charts for chart in of_result])
    return [drawn(of_result, shared) for of_result in charts]
