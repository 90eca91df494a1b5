"""A sweep in the terminal: a grid of sigma and M, each vote at its peak, and in words how sure the peak is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rich import box
from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.style import Style
from rich.table import Table
from rich.text import Text

from smoothed.evaluation.sweep.peaks import Best, Peak, find_best, find_peaks
from smoothed.evaluation.sweep.sweep import Cell, Sweep
from smoothed.evaluation.worst_case.rows import Accuracy

# Lines and columns of a grid: what a screen shows. More of them are thinned out; JSON and the plot have them all.
LINES, COLUMNS = 24, 9

# Shades of a grid, from its lowest accuracy to its highest: white to a blue that black letters can be read on.
LOWEST, HIGHEST = (250, 250, 250), (86, 164, 214)

V = TypeVar("V")

BEST, COLUMN_BEST = "*", "°"


@dataclass(frozen=True, eq=False)
class SweepReport:
    """A sweep with what can be read off it.

    Attributes:
        sweep: what was found.
        cells: all accuracies, by vote, M and sigma.
        peaks: the best sigma of each vote and M.
        best: the best of all.
    """

    sweep: Sweep
    cells: list[Cell]
    peaks: list[Peak]
    best: Best

    @classmethod
    def of(cls, sweep: Sweep) -> "SweepReport":
        """The report on a sweep."""
        cells = sweep.cells()
        peaks = find_peaks(sweep, cells)
        return cls(sweep, cells, peaks, find_best(sweep, peaks))

    @property
    def peak(self) -> Peak:
        """The vote and M of the best cell, at all sigmas."""
        return self.best.peak

    @property
    def judge(self) -> str:
        """What settings are judged by: the attack as papers write it, or clean images."""
        return sweep_attack(self.sweep.setting) if self.sweep.attacked else "clean"

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values: a row a cell, and what the sentences say."""
        return {
            "protocol": "sweep",
            "data": self.sweep.data,
            "judged_by": "robust" if self.sweep.attacked else "clean",
            "best": self.best.to_json(),
            "peaks": [peak.to_json() for peak in self.peaks],
            "rows": [self.sweep.row(cell) for cell in self.cells],
        }


def sweep_attack(setting: Mapping[str, Any]) -> str:
    """The attack as papers write it: PGD-7, FGSM."""
    name = str(setting["attack"]).upper()
    return name if setting["steps"] == 1 else f"{name}-{setting['steps']}"


def under_attack(setting: Mapping[str, Any]) -> str:
    """The attack of a sweep's setting, with its radius."""
    radius = f"{setting['eps']:g} pixels" if setting["norm"] == "l0" else f"{setting['eps'] * 255:g}/255"
    return f"{sweep_attack(setting)} at eps {radius}"


def sweep_grid(report: SweepReport) -> Table:
    """A table with a line for each sigma and a column for each M, of the best cell's vote.

    The cells are the accuracies that settings are judged by, in %. The largest M has its interval, too, and beside an
    attack the clean accuracy.
    """
    sweep, best = report.sweep, report.peak.cell
    table = Table(
        title=_title(report),
        caption=_legend(report),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    counts = thinned(sweep.num_samples, best.num_samples, COLUMNS)
    heads = ["sigma", f"M = {counts[0]}", *map(str, counts[1:]), "95 %", *(["clean"] if sweep.attacked else [])]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    cells = {(cell.sigma, cell.num_samples): cell for cell in report.cells if cell.vote == best.vote}
    peaks = {peak.cell.num_samples: peak.cell for peak in report.peaks if peak.cell.vote == best.vote}
    values = [cell.judged.mean for cell in cells.values()]
    for sigma in thinned(sweep.sigmas, best.sigma, LINES):
        line = [cells[sigma, count] for count in counts]
        shown = [_shaded(cell, min(values), max(values), _mark(cell, best, peaks)) for cell in line]
        more = [f" {100 * line[-1].clean.mean:.1f}"] if sweep.attacked else []
        table.add_row(f"{sigma:g}", *shown, f" {_interval(line[-1].judged)}", *more)
    return table


def peaks_table(report: SweepReport) -> Table:
    """A table with a column for each vote: its best sigma at the best cell's M, and what that gains over others."""
    count = report.peak.cell.num_samples
    peaks = [peak for peak in report.peaks if peak.cell.num_samples == count]
    table = Table(title=f"Each vote at its best sigma, M = {count}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    for peak in peaks:
        table.add_column(peak.cell.vote + (BEST if peak is report.peak else " "), justify="right")
    lines: dict[str, Callable[[Peak], str]] = {
        "best sigma": lambda peak: f"{peak.cell.sigma:g}",
        f"{report.judge} %": lambda peak: f"{100 * peak.cell.judged.mean:.1f}",
        "95 % interval": lambda peak: _interval(peak.cell.judged),
        "may be the best": lambda peak: spans(peak.candidates, report.sweep.sigmas),
        "gain over sigma 0": lambda peak: _versus(peak, 0.0),
        "over the one below": lambda peak: _versus(peak, _neighbour(report.sweep, peak, -1)),
        "over the one above": lambda peak: _versus(peak, _neighbour(report.sweep, peak, 1)),
    }
    for name, show in lines.items():
        table.add_row(name, *(f"{show(peak)} " for peak in peaks))
    return table


def sweep_sentences(report: SweepReport) -> list[str]:
    """What the sweep says, in words: the best cell, and whether these images tell it from others."""
    say = (_best_sentence, _sigma_sentence, _gain_sentence, _draws_sentence, _votes_sentence)
    return [sentence for each in say if (sentence := each(report))]


def caution(data: str) -> str:
    """What to say where a sweep was made on test images."""
    return (
        f"these are test images ({data}): choose on others (--split validation), "
        "for the best of many cells looks better than it is"
    )


def thinned(values: Sequence[V], best: V, most: int) -> list[V]:
    """At most about `most` of ordered values, evenly spread; the best, its neighbours and the ends stay."""
    step, place = -(-len(values) // most), values.index(best)
    kept = {0, place - 1, place, place + 1, len(values) - 1} | set(range(0, len(values), step))
    return [value for number, value in enumerate(values) if number in kept]


def spans(chosen: Sequence[Any], of: Sequence[Any]) -> str:
    """Some values of an ordered list as words, neighbours drawn together: `0.1-0.3, 0.5`."""
    groups = list[list[Any]]()
    for value in chosen:
        if groups and of.index(groups[-1][-1]) + 1 == of.index(value):
            groups[-1].append(value)
        else:
            groups.append([value])
    return ", ".join(
        _word(group[0]) if len(group) == 1 else f"{_word(group[0])}-{_word(group[-1])}" for group in groups
    )


def _best_sentence(report: SweepReport) -> str:
    cell = report.peak.cell
    units = report.sweep.setting["sigma_units"]
    found = (
        f"{_percent(cell.judged)} under {report.judge}" if cell.robust else f"{_percent(cell.clean)} on clean images"
    )
    also = f", {_percent(cell.clean)} on clean images" if cell.robust else ""
    place = f"sigma {cell.sigma:g} ({units}), {cell.vote} vote, M = {cell.num_samples}"
    return f"Best on these {report.sweep.images} images: {place}: {found}{also}."


def _sigma_sentence(report: SweepReport) -> str:
    candidates, sigmas = report.peak.candidates, report.sweep.sigmas
    if len(sigmas) == 1:
        return "One sigma was measured: there is nothing to compare it with."
    if len(candidates) == 1:
        return "Every other sigma is beaten by another one (95 % confidence)."
    if len(candidates) == len(sigmas):
        return f"These images can't tell which of the {len(sigmas)} sigmas is the best: take more images."
    held = spans(candidates, sigmas)
    return f"The best sigma is one of {held} ({len(candidates)} of {len(sigmas)}; 95 % confidence)."


def _gain_sentence(report: SweepReport) -> str:
    versus = report.peak.versus
    if not versus:
        return ""
    said = ", ".join(f"{100 * other.gain:+.1f} over {sigma:g} ({_p(other.p)})" for sigma, other in versus.items())
    real = [f"{sigma:g}" for sigma, other in versus.items() if other.real]
    if not real:
        verdict = "none of that can be told from chance"
    elif len(real) == len(versus):
        verdict = "that is more than chance"
    else:
        verdict = f"only what it gains over {' and '.join(real)} is more than chance"
    return f"Its points over other sigmas, on the same images: {said}: {verdict}."


def _draws_sentence(report: SweepReport) -> str:
    cell, fewest = report.peak.cell, report.best.num_samples[0]
    if cell.num_samples == report.sweep.num_samples[0]:
        return ""
    if fewest == cell.num_samples:
        return "Fewer draws are worse there."
    return f"Fewer draws may do: M = {fewest} can't be told from M = {cell.num_samples} there."


def _votes_sentence(report: SweepReport) -> str:
    votes, own = report.sweep.votes, report.peak.cell.vote
    if len(votes) == 1:
        return ""
    others = [vote for vote in report.best.votes if vote != own]
    if not others:
        return "The other votes are worse there."
    return f"The {' and '.join(others)} vote{'s' if len(others) > 1 else ''} can't be told from the {own} vote there."


def _title(report: SweepReport) -> str:
    sweep = report.sweep
    what = under_attack(sweep.setting) if sweep.attacked else "clean images"
    runs = f", {sweep.runs} runs" if sweep.runs > 1 else ""
    return f"{sweep.model}, {sweep.images} images{runs}, {report.peak.cell.vote} vote: accuracy in %, {what}"


def _legend(report: SweepReport) -> str:
    sweep, best = report.sweep, report.peak.cell
    lines = len(thinned(sweep.sigmas, best.sigma, LINES))
    columns = len(thinned(sweep.num_samples, best.num_samples, COLUMNS))
    legend = f"{BEST} best of all, {COLUMN_BEST} best sigma of its M; 95 % interval"
    legend += f"{' and clean accuracy' if sweep.attacked else ''} of M = {sweep.num_samples[-1]}"
    if lines < len(sweep.sigmas):
        legend += f"; {lines} of {len(sweep.sigmas)} sigmas"
    if columns < len(sweep.num_samples):
        legend += f"; {columns} of {len(sweep.num_samples)} Ms"
    return legend


def _mark(cell: Cell, best: Cell, peaks: dict[int, Cell]) -> str:
    if cell == best:
        return BEST
    return COLUMN_BEST if cell == peaks[cell.num_samples] else " "


def _shaded(cell: Cell, low: float, high: float, mark: str) -> Text:
    share = (cell.judged.mean - low) / (high - low) if high > low else 0.5
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(LOWEST, HIGHEST, strict=True))
    style = Style(
        color="black", bgcolor=Color.from_triplet(ColorTriplet(red, green, blue)), bold=True if mark.strip() else None
    )
    return Text(f" {100 * cell.judged.mean:.1f}{mark}", style=style)


def _neighbour(sweep: Sweep, peak: Peak, step: int) -> float | None:
    place = sweep.sigmas.index(peak.cell.sigma) + step
    return sweep.sigmas[place] if 0 <= place < len(sweep.sigmas) else None


def _versus(peak: Peak, sigma: float | None) -> str:
    comparison = None if sigma is None else peak.versus.get(sigma)
    return "-" if comparison is None else f"{100 * comparison.gain:+.1f} ({_p(comparison.p)})"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _percent(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.mean:.1f} % ({_interval(accuracy)})"


def _interval(accuracy: Accuracy) -> str:
    low, high = accuracy.interval
    return f"{100 * low:.1f}-{100 * high:.1f}"


def _word(value: Any) -> str:  # noqa: ANN401 - a number or a name
    return value if isinstance(value, str) else f"{value:g}"
