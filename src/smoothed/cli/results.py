"""The result of a command: printed, and written to the files that the user named."""

from collections.abc import Iterable
from pathlib import Path

from smoothed.cli.console import note, show
from smoothed.errors import ArgumentError
from smoothed.evaluation.results import Result, check_result_path, tensors_path
from smoothed.report.figures import check_plot_format
from smoothed.report.html.page import check_report_name
from smoothed.report.result import result_parts
from smoothed.utils.files import require_writable


def check_files(
    json: Path | None,
    plot: Path | None = None,
    report: Path | None = None,
    *,
    others: Iterable[Path] = (),
    argument: str = "report",
) -> None:
    """Raise an error before any work if a file cannot be written as it shall be.

    Args:
        json: file of the result.
        plot: file of the plot.
        report: file of the page.
        others: further files that the command writes.
        argument: name of the option for the page in error messages.

    Raises:
        ArgumentError: the suffix of a file is wrong, or two files have one name.
        OutputError: a file can't be written.
    """
    written = [*others]
    if plot is not None:
        check_plot_format(plot)
        written.append(plot)
    if report is not None:
        check_report_name(report, argument)
        written.append(report)
    if json is not None:
        check_result_path(json, "json")
        written += [json, tensors_path(json)]
    places = [path.resolve() for path in written]
    for path, place in zip(written, places, strict=True):
        if places.count(place) > 1:
            raise ArgumentError(
                "json", "files of different names", f"{path} twice", "a .safetensors file lies beside it"
            )
        require_writable(path)


def show_result(result: Result, json: Path | None, plot: Path | None = None, report: Path | None = None) -> None:
    """Print the tables and sentences of a result, and write its files."""
    for part in result_parts(result):
        show(part)
    if plot is not None:
        result.plot(plot)
        note(f"plot written to {plot}")
    write_page(result, report)
    if json is not None:
        result.save(json)
        beside = f" and {tensors_path(json)}" if result.tensors else ""
        note(f"result written to {json}{beside}")


def write_page(result: Result, report: Path | None) -> None:
    """Write the page of a result to a file, if the user named one."""
    if report is not None:
        note(f"report written to {result.report(report)}")
