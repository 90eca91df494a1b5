"""Tables in the terminal and in Markdown: our numbers beside the paper's, empty where nothing has been run."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Column, Table

from smoothed.evaluation.results import PairedGain
from smoothed.paper.declaration import TUNED, TableSpec
from smoothed.paper.differences import PublishedDifference
from smoothed.paper.folder import RunFolder
from smoothed.paper.shown import ShownRow, attack_label, comparisons
from smoothed.report.format import format_interval, format_points

HOW = (
    "Accuracies are in percent. Ours: mean and standard deviation over runs; in parentheses, 95 % interval over "
    "images. Difference: ours minus the paper's, in points, with a 95 % interval from the deviations of both over runs "
    "and from our choice of test images. * marks a number without a published deviation, which counts as 0. How much "
    "networks of other seeds differ is not part of the interval. Sigma is in the paper's unit, relative to the data "
    "set's deviation. Empty cells have not been run."
)
"""Explanation of the columns, printed with the tables."""

COLUMNS = ("row", "attack", "M", "sigma", "images", "runs", "clean, paper", "clean, ours", "difference")
COLUMNS += ("attacked, paper", "attacked, ours", "difference")
_LEFT = ("row", "attack")


def terminal_table(table: TableSpec, rows: Sequence[ShownRow], folder: RunFolder) -> Table:
    """A table for the terminal, in at most 80 columns: the name of each row, then a line for each kind of images."""
    made = Table(
        Column("row", ratio=1),
        *(Column(name, justify="right", no_wrap=True) for name in ("paper", "ours", "difference")),
        title=f"{table.name}: {table.title}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    common = _common_size(rows)
    made.caption, made.caption_justify = common and f"{common}, unless stated", "left"
    group = ""
    for row in rows:
        if row.spec.group != group:
            group = row.spec.group
            made.add_section()
            made.add_row(group, style="italic")
        label, attack, count, sigma, _, _, *numbers = _cells(row, folder, digits=1)
        tuned = row.spec.measurement is not None and row.spec.measurement.sigma == TUNED and row.values is not None
        size = _size(row)
        parts = (label, f"({sigma})" if tuned else "", f"M = {count}" if count else "", size if size != common else "")
        made.add_row(", ".join(part for part in parts if part).replace(", (", " ("))
        for name, of_kind in (("clean", numbers[:3]), (attack or "attacked", numbers[3:])):
            if any(of_kind):
                made.add_row(f"  {name}", *of_kind)
    return made


def markdown_table(table: TableSpec, rows: Sequence[ShownRow], folder: RunFolder) -> str:
    """The same in Markdown, with the notes of its rows."""
    lines = [f"## {table.name}: {table.title}", ""]
    lines += [f"{table.note}\n"] if table.note else []
    lines += [_line(COLUMNS), _line("---" if name in _LEFT else "--:" for name in COLUMNS)]
    group = ""
    for row in rows:
        if row.spec.group != group:
            group = row.spec.group
            lines.append(_line([f"**{group}**", *[""] * (len(COLUMNS) - 1)]))
        lines.append(_line(_cells(row, folder)))
    notes = [f"- {row.spec.label}: {row.spec.note}." for row in rows if row.spec.note]
    gains = [f"- {sentence}" for sentence in gain_lines(comparisons(list(rows)))]
    return "\n".join([*lines, *_part(notes), *_part(gains)]) + "\n"


def gain_lines(gains: Iterable[PairedGain]) -> list[str]:
    """One sentence for each comparison of rows on the same images."""
    kinds = {"clean": "on clean images", "robust": "on attacked images"}
    return [
        f"{gain.name}: {format_points(gain.gain, gain.interval)} {kinds[gain.images]}"
        + ("." if gain.significant else "; the interval includes 0.")
        for gain in gains
    ]


def table_json(table: TableSpec, rows: Sequence[ShownRow], folder: RunFolder) -> dict[str, Any]:
    """A table as JSON values."""
    return {
        "schema": "smoothed-paper-table",
        "name": table.name,
        "title": table.title,
        "note": table.note,
        "schedule": folder.schedule.name,
        "rows": [row.to_json() for row in rows],
        "comparisons": [vars(gain) for gain in comparisons(list(rows))],
    }


def appendix_tables(values: dict[str, Any]) -> list[Table]:
    """The two tables of appendix A, from the JSON values of its result."""
    made = []
    for name, title in APPENDIX_TITLES.items():
        rows = values[name]
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for column in rows[0]:
            table.add_column(column.replace("_", " "), justify="right")
        for row in rows:
            table.add_row(*map(_text, row.values()))
        made.append(table)
    return made


def appendix_markdown(values: dict[str, Any]) -> str:
    """The same in Markdown."""
    lines = ["## appendix-a: a support vector machine under attack, with and without noise on its input", ""]
    for name, title in APPENDIX_TITLES.items():
        rows = values[name]
        columns = [column.replace("_", " ") for column in rows[0]]
        lines += [title, "", _line(columns), _line("--:" for _ in columns)]
        lines += [*(_line(map(_text, row.values())) for row in rows), ""]
    return "\n".join(lines)


APPENDIX_TITLES = {
    "objective": "Objective of a sample (eq. A.26), exact and estimated, beside the right-hand side of eq. A.28",
    "orthogonal": "Orthogonal part of an attack (eq. A.29) against its law, and its length along the attack (eq. A.30)",
}


def _size(row: ShownRow) -> str:
    """Number of images and runs of a row; nothing where it has not been run."""
    return "" if row.values is None else f"{row.values['images']} images, {row.values['runs']} runs"


def _common_size(rows: Sequence[ShownRow]) -> str:
    """The number of images and runs that most rows have."""
    sizes = Counter(_size(row) for row in rows if row.values is not None)
    return max(sizes, key=lambda size: sizes[size], default="")


def _cells(row: ShownRow, folder: RunFolder, digits: int = 2) -> list[str]:
    source, values = row.spec.measurement, row.values or {}
    attack = "" if source is None else attack_label(source, folder.schedule.steps(source.steps))
    count = row.spec.num_samples
    declared = "" if source is None or source.sigma is None else str(source.sigma)
    sigma = declared if row.spec.vote is None or not values else f"{values['sigma_normalized']:.4g}"
    cells = [row.spec.label, attack, "" if count is None else str(folder.schedule.samples(count)), sigma]
    cells += [str(values.get("images", "")), str(values.get("runs", ""))]
    for kind in ("clean", "robust"):
        cells += [_published(row, kind), _ours(row, kind, digits), _difference(row.differences.get(kind))]
    return cells


def _published(row: ShownRow, kind: str) -> str:
    found = row.published(kind)
    if found is None:
        return ""
    return f"{found[0]:.2f}*" if found[1] is None else f"{found[0]:.2f} ± {found[1]:.2f}"


def _ours(row: ShownRow, kind: str, digits: int) -> str:
    found = row.accuracy(kind)
    if found is None or row.values is None:
        return ""
    deviation = f" ± {100 * found.std:.{digits}f}" if row.values["runs"] > 1 else ""
    return f"{100 * found.mean:.{digits}f}{deviation} ({format_interval(found.interval)})"


def _difference(found: PublishedDifference | None) -> str:
    if found is None:
        return ""
    return f"{found.points:+.1f} ({found.interval[0]:+.1f} to {found.interval[1]:+.1f})"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _part(lines: list[str]) -> list[str]:
    return ["", *lines] if lines else []


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    shown: Callable[[float], str] = lambda number: f"{number:.4g}"  # noqa: E731
    if isinstance(value, list):
        return " to ".join(map(shown, value))
    return "" if value is None else shown(value) if isinstance(value, float) else str(value)
