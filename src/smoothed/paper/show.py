"""Tables in the terminal and in Markdown: our numbers beside the paper's, empty where nothing has been run."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Column, Table

from smoothed.evaluation.results import PairedGain
from smoothed.paper.catalog import DECLARATIONS
from smoothed.paper.declaration import TUNED, TableSpec
from smoothed.paper.differences import PublishedDifference
from smoothed.paper.estimates import POINTS, ClaimEstimate
from smoothed.paper.folder import RunFolder
from smoothed.paper.shown import ShownRow, attack_label, comparisons
from smoothed.paper.verdicts import JudgedClaim, region_text, run_command
from smoothed.report.format import format_interval, format_points

HOW = (
    "Accuracies are in percent. Ours: mean and standard deviation over runs; in parentheses, 95 % interval over "
    "images. Difference: ours minus the paper's, in points, with a 95 % interval from the deviations of both over runs "
    "and from our choice of test images. * marks a number without a published deviation, which counts as 0. How much "
    "networks of other seeds differ is not part of the interval. Sigma is in the paper's unit, relative to the data "
    "set's deviation. Empty cells have not been run."
)
"""Explanation of the columns, printed with the tables."""

CLAIMS_HOW = (
    "Each claim states a region in which its differences lie. Differences are in points unless stated, with a paired "
    "95 % interval over the same images. A difference holds if its interval lies inside the region, does not hold if "
    "it lies outside, and is undecided if the interval includes an end of the region or if a result is missing. A "
    "claim holds if all its differences hold, and does not hold if one of them does not. How much networks of other "
    "seeds differ is not part of the intervals."
)
"""Explanation of the verdicts, printed with the claims."""

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
        stated = f"M = {row.spec.num_samples}"
        if count and stated in label:
            label, count = label.replace(stated, f"M = {count}"), ""
        parts = (label, f"({sigma})" if tuned else "", f"M = {count}" if count else "", size if size != common else "")
        made.add_row(", ".join(part for part in parts if part).replace(", (", " ("))
        for name, of_kind in (("clean", numbers[:3]), (attack or "attacked", numbers[3:])):
            if any(of_kind):
                made.add_row(f"  {name}", *of_kind)
    return made


def markdown_table(table: TableSpec, rows: Sequence[ShownRow], folder: RunFolder) -> str:
    """The same in Markdown, with the notes of its rows; without rows if none of them has been run."""
    lines = [f"## {table.name}: {table.title}", ""]
    lines += [f"{table.note}\n"] if table.note else []
    if all(row.values is None for row in rows):
        return "\n".join([*lines, "Not run."]) + "\n"
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


def claims_table(claims: Sequence[JudgedClaim]) -> Table:
    """The claims for the terminal, in at most 80 columns: the sentence, then a line for each difference."""
    made = Table(
        Column("claim", ratio=1, overflow="fold"),
        Column("difference", justify="right", no_wrap=True),
        Column("verdict", no_wrap=True),
        title="The paper's claims",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for judged in claims:
        claim, several = judged.claim, len(judged.parts) > 1
        made.add_section()
        made.add_row(claim.sentence, "", judged.verdict, style="bold")
        made.add_row(f"{claim.where}. Holds {region_text(claim.region)}: {claim.difference}.", style="italic")
        for part in judged.parts:
            if part.estimate is not None:
                made.add_row(f"  {part.name}", _estimate(part.estimate), part.verdict if several else "")
        if judged.why:
            made.add_row(f"{judged.why[0].upper()}{judged.why[1:]}.")
    return made


def claims_lines(claims: Sequence[JudgedClaim], folder: RunFolder) -> list[str]:
    """How many claims hold, and the command that makes the results that are missing."""
    counts = Counter(judged.verdict for judged in claims)
    told = [f"{counts[verdict]} {text}" for verdict, text in _COUNTED.items()]
    lines = [f"Claims: {', '.join(told)}."]
    needed = {name for judged in claims for name in judged.to_run}
    command = run_command([name for name in DECLARATIONS if name in needed], folder)
    return [*lines, f"Make the results that are not run with `{command}`."] if command else lines


def claims_markdown(claims: Sequence[JudgedClaim], folder: RunFolder) -> str:
    """The claims in Markdown, with the results and the reason of each difference whose results have been run."""
    lines = ["## The paper's claims", "", CLAIMS_HOW, "", " ".join(claims_lines(claims, folder)), ""]
    lines += [_line(("claim", "from", "difference", "verdict", "why")), _line(("---", "---", "--:", "---", "---"))]
    for judged in claims:
        claim, command = judged.claim, run_command(judged.to_run, folder)
        why = f"{judged.why}; `{command}`" if command else judged.why
        about = f"{claim.difference}: {region_text(claim.region)}"
        lines.append(_line((f"**{claim.sentence}** {claim.where}.", about, "", f"**{judged.verdict}**", why)))
        for part in (part for part in judged.parts if not part.missing):
            results = ", ".join(f"`{name}`" for name in part.results)
            estimate = "" if part.estimate is None else _estimate(part.estimate)
            lines.append(_line((part.name, results, estimate, part.verdict, part.why)))
    return "\n".join(lines) + "\n"


def claims_json(claims: Sequence[JudgedClaim], folder: RunFolder) -> dict[str, Any]:
    """The claims as JSON values."""
    values = [judged.to_json() for judged in claims]
    return {"schema": "smoothed-paper-claims", "schedule": folder.schedule.name, "claims": values}


_COUNTED = {"holds": "hold", "does not hold": "do not hold", "undecided": "undecided"}


def appendix_tables(values: dict[str, Any]) -> list[Table]:
    """The two tables of appendix A, from the JSON values of its result, in at most 80 columns."""
    made = []
    for name, title in APPENDIX_TITLES.items():
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in _appendix_columns(values[name]):
            table.add_column(APPENDIX_COLUMNS.get(column, column), justify="right")
        for row in values[name]:
            table.add_row(*_appendix_cells(row))
        made.append(table)
    return made


def appendix_markdown(values: dict[str, Any]) -> str:
    """The same in Markdown."""
    lines = ["## appendix-a: a support vector machine under attack, with and without noise on its input", ""]
    for name, title in APPENDIX_TITLES.items():
        columns = [APPENDIX_COLUMNS.get(column, column) for column in _appendix_columns(values[name])]
        lines += [title, "", _line(columns), _line("--:" for _ in columns)]
        lines += [*(_line(_appendix_cells(row)) for row in values[name]), ""]
    return "\n".join([*lines, APPENDIX_NOTE, ""])


def _appendix_columns(rows: list[dict[str, Any]]) -> list[str]:
    return [column for column in rows[0] if column != "estimate_interval"]


def _appendix_cells(row: dict[str, Any]) -> list[str]:
    """The cells of a row; an estimate has the half of its interval beside it."""
    low, high = row["estimate_interval"]
    shown = {**row, "estimate": f"{_text(row['estimate'])} ± {(high - low) / 2:.1g}"}
    return [_text(shown[column]) for column in _appendix_columns([row])]


APPENDIX_COLUMNS = {
    "without_noise": "without noise",
    "with_noise": "with noise",
    "estimate": "estimate, 95 % interval",
    "equation_a28": "eq. A.28",
    "length_by_equation_a30": "length by eq. A.30",
    "length_by_bisection": "length by bisection",
}
"""Headers of columns whose names in the result are no words."""

APPENDIX_NOTE = (
    "The law is missing where the paper has none: for p = infinity it has one along an axis. Eq. A.30 holds along an "
    "axis and for p = 2; elsewhere it is larger than the longest length, which bisection finds."
)

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


def _estimate(found: ClaimEstimate) -> str:
    digits = 1 if found.unit == POINTS else 2
    value, low, high = (f"{number:+.{digits}f}" for number in (found.value, *found.interval))
    return f"{value} ({low} to {high})"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _part(lines: list[str]) -> list[str]:
    return ["", *lines] if lines else []


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    shown: Callable[[float], str] = lambda number: f"{number:.4g}"  # noqa: E731
    if isinstance(value, list):
        return " to ".join(map(shown, value))
    return "" if value is None else shown(value) if isinstance(value, float) else str(value)
