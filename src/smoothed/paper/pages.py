"""The pages of a run: claims and tables in Markdown and JSON, figures as SVG and PNG, and the results behind them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smoothed.checkpoint import SUFFIX
from smoothed.errors import ArgumentError
from smoothed.paper.catalog import DECLARATIONS
from smoothed.paper.declaration import FigureSpec, TableSpec, sources_of
from smoothed.paper.draw import draw
from smoothed.paper.folder import RunFolder
from smoothed.paper.plan import tuning_name
from smoothed.paper.show import HOW, appendix_markdown, claims_json, claims_markdown, markdown_table, table_json
from smoothed.paper.shown import shown_rows
from smoothed.paper.verdicts import judge_claims
from smoothed.report.figures import write_figure
from smoothed.report.html.overview import write_overview
from smoothed.utils.files import write_atomically, write_json, write_text


def write_pages(names: Sequence[str], folder: RunFolder, destination: Path | str) -> Path:
    """Write README.md with claims, tables and figures, and beside it the files of each.

    These are `claims.json`, NAME.json of each table, the figures, and the files of each result in `results`.

    Args:
        names: names of declarations; none for all.
        folder: folder of the run.
        destination: folder to write to.

    Returns:
        Path of README.md.

    Raises:
        DataError: a result is damaged.
        OutputError: a file can't be written.
    """
    destination = Path(destination)
    parts = [_introduction(folder)]
    claims = judge_claims(folder, names)
    if claims:
        parts.append(claims_markdown(claims, folder))
        write_json(claims_json(claims, folder), destination / "claims.json")
    for name in names or DECLARATIONS:
        spec = DECLARATIONS[name]
        if isinstance(spec, TableSpec):
            rows = shown_rows(spec, folder)
            parts.append(markdown_table(spec, rows, folder))
            write_json(table_json(spec, rows, folder), destination / f"{name}.json")
        elif isinstance(spec, FigureSpec):
            parts.append(_figure_part(spec, folder, destination))
        elif (values := appendix_values(folder)) is not None:
            parts.append(appendix_markdown(values))
    for result in (*result_names(names, folder), "appendix-a"):
        for copied in (folder.result(result), folder.result(result).with_suffix(SUFFIX)):
            if copied.is_file():
                target = destination / "results" / copied.name
                write_atomically(target, lambda partial, copied=copied: shutil.copy(copied, partial))
    parts.append(_provenance_part(destination / "results"))
    return write_text(destination / "README.md", "\n".join(parts))


def result_names(names: Sequence[str], folder: RunFolder) -> list[str]:
    """Names of the evaluations behind declarations (none for all), and of the sweeps that chose their sigma."""
    results = [source.name for name in names or DECLARATIONS for source in _sources(name, folder)]
    return list(dict.fromkeys([*results, *(tuning_name(result.partition(".")[0]) for result in results)]))


def write_results_page(names: Sequence[str], folder: RunFolder, path: Path | str) -> Path:
    """Write all finished evaluations behind declarations (none for all) as one HTML page.

    Raises:
        ArgumentError: no evaluation is finished, or the name of the file does not end in .html.
        DataError: a result is damaged.
        OutputError: the file can't be written.
    """
    found = {name: folder.load_result(name) for name in result_names(names, folder)}
    finished = {name: result for name, result in found.items() if result is not None}
    if not finished:
        hint = "run `smoothed paper run` first"
        raise ArgumentError("report", "at least one finished evaluation", f"none in {folder.path}", hint)
    title = f"The paper's evaluations, schedule {folder.schedule.name}"
    return write_overview(finished, path, title=title)


def appendix_values(folder: RunFolder) -> dict[str, Any] | None:
    """JSON values of the appendix; None if it has not been run."""
    path = folder.result("appendix-a")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _introduction(folder: RunFolder) -> str:
    schedule = folder.schedule
    return (
        f"# The paper's tables and figures, schedule `{schedule.name}`\n\n"
        f"`smoothed paper show` writes this page. The schedule is: {schedule.about}. `results/` holds the result of "
        "each evaluation, with its setting, command and hardware, and the outcome of each image; figures and tables "
        f"are made from these files alone.\n\n{HOW}\n"
    )


def _figure_part(spec: FigureSpec, folder: RunFolder, destination: Path) -> str:
    lines = [f"## {spec.name}: {spec.title}", "", *([spec.note, ""] if spec.note else [])]
    figure = draw(spec, folder)
    if figure is None:
        return "\n".join([*lines, "Not run.", ""])
    for suffix in ("svg", "png"):
        write_figure(figure, destination / f"{spec.name}.{suffix}")
    return "\n".join([*lines, f"![{spec.title}]({spec.name}.svg)", ""])


def _sources(name: str, folder: RunFolder) -> list[Any]:
    return list(sources_of(DECLARATIONS[name], folder.schedule.name))


def _provenance_part(results: Path) -> str:
    """The hardware, the versions and the commands behind the results."""
    found: dict[tuple[str, str, str], float] = {}
    for path in sorted(results.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8")).get("provenance", {})
        device, version, command = (str(record.get(name, "unknown")) for name in ("device", "smoothed", "command"))
        key = (device, version, command)
        found[key] = found.get(key, 0.0) + float(record.get("seconds") or 0.0)
    lines = ["## How the numbers were made", "", "| hardware | version | command | hours of evaluation |"]
    lines += ["|---|---|---|--:|"]
    lines += [
        f"| {device} | {version} | `{command}` | {seconds / 3600:.2f} |"
        for (device, version, command), seconds in found.items()
    ]
    return "\n".join(lines) + "\n"
