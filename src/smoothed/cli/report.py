"""`smoothed report` and `smoothed compare`: pages of results that are stored in files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smoothed.cli.console import note, show
from smoothed.cli.options import Report

if TYPE_CHECKING:
    from smoothed.evaluation.results import Result

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
    report: Report = None,
) -> None:
    """Compare two results on the same images by the paired test: the second accuracy minus the first.

    The first lines compare the votes that the report of each result shows first. Further lines compare votes that both
    results have.

    Examples:
        smoothed compare one-draw.json vote.json
        smoothed compare pgd.json epgd.json --report comparison.html
    """
    from smoothed.cli.results import check_files
    from smoothed.errors import ArgumentError
    from smoothed.report.html.comparison import check_same_images, comparison_sentence, pair_lines

    check_files(None, report=report)
    if len(results) != 2:
        raise ArgumentError("results", "two files", f"{len(results)}")
    before, after = map(_load_result, results)
    check_same_images(before, after, "results")
    lines = pair_lines(before, after)
    show(comparison_sentence(lines))
    for line in lines:
        gain = line.gain
        show(
            f"{gain.name}, {gain.images}: {line.first} and {line.second}, {gain.gain} points (paired 95 % interval "
            f"{gain.bounds}). Images that only the second gets right: {gain.won}; that only the first gets right: "
            f"{gain.lost} ({gain.p})."
        )
    if report is not None:
        note(f"report written to {before.report(report, against=after)}")


def _name(path: Path, paths: list[Path]) -> str:
    """The name of a file without its ending, or its whole path where several files have that name."""
    return path.stem if [each.stem for each in paths].count(path.stem) == 1 else str(path)


def _load_result(path: Path) -> "Result":
    from smoothed.evaluation.results import Result

    return Result.load(path)


@contextmanager
def _named(argument: str, option: str) -> Iterator[None]:
    """Name an option of the command line in errors about an argument of a function."""
    from smoothed.errors import ArgumentError

    try:
        yield
    except ArgumentError as error:
        raise (error.named(option) if error.argument == argument else error) from None
