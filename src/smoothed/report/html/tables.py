"""The rows of a result as a table of text: the columns that a reader needs, not every field."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from smoothed.evaluation.paper_protocol.rows import ONE_DRAW
from smoothed.evaluation.results import Result
from smoothed.report.format import format_base, format_interval

Cell = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class PlainTable:
    """A caption, the names of the columns, and the cells of each line; `numeric` columns are aligned to the right."""

    caption: str
    columns: list[str]
    lines: list[list[str]]
    numeric: list[bool]


def rows_of(result: Result) -> PlainTable | None:
    """The rows of a result as a table; None for kinds that are shown in another form."""
    if result.kind not in _COLUMNS or not result.rows:
        return None
    columns = {name: cell for name, cell in _COLUMNS[result.kind].items() if any(cell(row) for row in result.rows)}
    caption = _CAPTIONS.get(result.kind, "")
    if result.kind == "evaluate":
        base = format_base(result.setting)
        columns["vote"] = lambda row: base if row["vote"] == ONE_DRAW else row["vote"]
        caption = f"Accuracy of {'' if base == 'one draw' else 'the '}{base} and of each vote"
    lines = [[cell(row) for cell in columns.values()] for row in result.rows]
    return PlainTable(caption, list(columns), lines, [name not in _WORDS for name in columns])


def _percent(field: str) -> Cell:
    def cell(row: Mapping[str, Any]) -> str:
        value, deviation = row.get(field), row.get(f"{field}_std")
        if value is None:
            return ""
        return f"{100 * value:.2f}" + (f" ± {100 * deviation:.2f}" if deviation and row.get("runs", 1) > 1 else "")

    return cell


def _bounds(field: str) -> Cell:
    def cell(row: Mapping[str, Any]) -> str:
        bounds = row.get(field)
        return "" if bounds is None else format_interval(bounds)

    return cell


def _number(field: str, form: str = ".4g") -> Cell:
    def cell(row: Mapping[str, Any]) -> str:
        value = row.get(field)
        return "" if value is None else format(value, form)

    return cell


_WORDS = {"vote"}

_ACCURACIES: dict[str, Cell] = {
    "vote": lambda row: row["vote"],
    "M": _number("num_samples", "d"),
    "sigma": _number("sigma"),
    "sigma, normalised": _number("sigma_normalized"),
    "clean %": _percent("clean"),
    "95 % interval, clean": _bounds("clean_interval"),
    "attacked %": _percent("robust"),
    "95 % interval, attacked": _bounds("robust_interval"),
}

_COLUMNS: dict[str, dict[str, Cell]] = {
    "evaluate": _ACCURACIES,
    "examples": {
        **_ACCURACIES,
        "vote": lambda row: "one draw" if (row["vote"], row["num_samples"]) == ("prediction", 1) else row["vote"],
    },
    "sweep": _ACCURACIES,
    "certify": {
        "sigma": _number("sigma"),
        "L2 radius": _number("radius", "g"),
        "L-inf in 1/255": lambda row: f"{255 * row['linf_eps']:.2f}",
        "certified %": _percent("certified"),
        "95 % interval": _bounds("certified_interval"),
        "clean %": _percent("clean"),
        "CERTIFY abstains %": _percent("abstained"),
        "mean radius": _number("mean_radius"),
    },
    "train": {
        "epoch": _number("epoch", "g"),
        "step": _number("step", "d"),
        "loss": _number("loss"),
        "clean %": _percent("validation_clean"),
        "PGD-7 %": _percent("validation_robust"),
        "seconds": _number("seconds", ".0f"),
    },
}

_CAPTIONS = {
    "examples": "Accuracy on clean images and on the saved examples",
    "sweep": "Accuracy at each vote, M and sigma",
    "certify": "Certified accuracy at each radius",
    "train": "Validation accuracy after each epoch",
}
