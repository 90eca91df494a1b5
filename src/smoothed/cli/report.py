"""`smoothed report` and `smoothed compare`: pages of results that are stored in files."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smoothed.cli.console import note, show
from smoothed.cli.options import Report, option
from smoothed.errors import ArgumentError

if TYPE_CHECKING:
    from smoothed.evaluation.results import Result
    from smoothed.report.html.comparison import ChosenRow

ROW_PANEL = "Compared rows"
BOTH = "Two values, separated by a comma, are of the first and of the second result."
FILE_HELP = "File that --json or `Result.save` wrote, with its .safetensors file beside it."


def report(
    results: Annotated[
        list[Path],
        typer.Argument(help=f"{FILE_HELP} Of two files, the page compares the results; of more, it lists them."),
    ],
    out: Annotated[Path, typer.Option(help="File for the page: .html.")] = Path("report.html"),
) -> None:
    """Write one or several results as a page that opens in a browser; two are compared image by image.

    The page is a single file that needs no network. It has the verdict, the threat model, the images with their votes,
    and charts. Two results are matched image by image, with the paired test of the second against the first. Three or
    more results, which may be of any kinds and on any images, are listed one after the other, without their images.

    Examples:
        smoothed report result.json
        smoothed report pgd.json epgd.json --out comparison.html
    """
    from smoothed.cli.results import check_files

    check_files(None, report=out, argument="out")
    if len(results) > 2:
        from smoothed.report.html.overview import write_overview

        title = f"{len(results)} results"
        found = {_name(path, results): _load_result(path) for path in results}
        note(f"report written to {write_overview(found, out, title=title)}")
        return
    first, *others = map(_load_result, results)
    with _named("against", "results"):
        note(f"report written to {first.report(out, against=others[0] if others else None)}")


def compare(
    results: Annotated[list[Path], typer.Argument(help=f"Two files on the same images. {FILE_HELP}")],
    vote: Annotated[
        str | None,
        option(ROW_PANEL, f"Vote to compare; none is one draw, or the network, without input noise. {BOTH}"),
    ] = None,
    sigma: Annotated[
        str | None,
        option(ROW_PANEL, f"Its sigma in pixel units of [0, 1], with the digits that tables show. {BOTH}"),
    ] = None,
    sigma_normalized: Annotated[
        str | None, option(ROW_PANEL, f"Its sigma in the paper's unit, in place of --sigma. {BOTH}")
    ] = None,
    num_samples: Annotated[str | None, option(ROW_PANEL, f"Its number of draws, M. {BOTH}")] = None,
    report: Report = None,
) -> None:
    """Compare two results on the same images by the paired test: the second accuracy minus the first.

    The first lines compare one row of each result: that of its classifier's or its checkpoint's own noise and vote, if
    the result has it, else of its first vote; at the largest M. --vote, --sigma, --sigma-normalized and --num-samples
    choose another row. Further lines compare every other row that both results have, if it is chosen in both.

    Examples:
        smoothed compare pgd.json epgd.json --report comparison.html
        smoothed compare result.json result.json --vote none,prediction
    """
    from smoothed.cli.results import check_files
    from smoothed.report.html.comparison import check_same_images, comparison_sentence, pair_lines

    check_files(None, report=report)
    if len(results) != 2:
        raise ArgumentError("results", "two files", f"{len(results)}")
    if sigma is not None and sigma_normalized is not None:
        raise ArgumentError("sigma", "one of --sigma and --sigma-normalized", "both")
    before, after = map(_load_result, results)
    sigmas = _pixel_sigmas(sigma, sigma_normalized, before, after)
    rows = _chosen_rows(vote, sigmas, num_samples)
    check_same_images(before, after, "results")
    lines = pair_lines(before, after, rows)
    show(comparison_sentence(lines))
    for name, of_rows in groupby(lines, lambda line: line.gain.name):
        show(f"{name}:")
        for line in of_rows:
            gain = line.gain
            show(
                f"  {gain.images}: {line.first} and {line.second}, {gain.gain} points (paired 95 % interval "
                f"{gain.bounds}). Images that only the second gets right: {gain.won}; that only the first gets right: "
                f"{gain.lost} ({gain.p})."
            )
    if report is not None:
        from smoothed.report.html.page import write_report

        note(f"report written to {write_report(before, report, after, rows)}")


def _pixel_sigmas(
    sigma: str | None, sigma_normalized: str | None, before: "Result", after: "Result"
) -> list[float] | None:
    """The chosen sigmas of the first and of the second result in pixel units; None if none is chosen."""
    from smoothed.cli.parsing import numbers
    from smoothed.report.html.comparison import sigma_of_normalized

    if sigma_normalized is None:
        return None if sigma is None else list(numbers(sigma, "sigma"))
    values = _of_both("sigma-normalized", list(numbers(sigma_normalized, "sigma-normalized")))
    return [
        sigma_of_normalized(result, value, which)
        for result, value, which in zip((before, after), values, ("first", "second"), strict=True)
    ]


def _chosen_rows(
    vote: str | None, sigmas: list[float] | None, num_samples: str | None
) -> "tuple[ChosenRow, ChosenRow]":
    """The rows of the first and of the second result that were chosen."""
    from smoothed.cli.parsing import integers
    from smoothed.report.html.comparison import ChosenRow

    # Tables name the row of the base network so.
    labels = {"one draw": "none", "network without noise": "none"}
    votes = None if vote is None else [labels.get(name.strip(), name.strip()) for name in vote.split(",")]
    counts = None if num_samples is None else integers(num_samples, "num-samples")
    pairs = (_of_both("vote", votes), _of_both("sigma", sigmas), _of_both("num-samples", counts))
    first, second = zip(*pairs, strict=True)
    return ChosenRow(*first), ChosenRow(*second)


def _of_both(argument: str, values: list[Any] | None) -> tuple[Any, Any]:
    """A value for each of two results, of one value or two."""
    if values is None:
        return None, None
    if len(values) > 2:
        raise ArgumentError(argument, "one value for both results, or two separated by a comma", f"{len(values)}")
    return values[0], values[-1]


def _name(path: Path, paths: list[Path]) -> str:
    """The name of a file without its ending, or its whole path where several files have that name."""
    return path.stem if [each.stem for each in paths].count(path.stem) == 1 else str(path)


def _load_result(path: Path) -> "Result":
    from smoothed.evaluation.results import Result

    return Result.load(path)


@contextmanager
def _named(argument: str, option: str) -> Iterator[None]:
    """Name an option of the command line in errors about an argument of a function."""
    try:
        yield
    except ArgumentError as error:
        raise (error.named(option) if error.argument == argument else error) from None
