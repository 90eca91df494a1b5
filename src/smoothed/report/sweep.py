"""A sweep in the terminal: accuracy by sigma and M, the best sigma of each vote, and significance in sentences."""

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
from smoothed.report.fitted import FittedTable, Words
from smoothed.report.format import (
    format_accuracy,
    format_attack,
    format_eps,
    format_interval,
    format_p_value,
    format_ranges,
    format_sigma,
)

# Largest numbers of lines and columns of a grid that fit on a screen. Larger grids are thinned; JSON and the plot
# contain all cells.
LINES, COLUMNS = 24, 9

# Background colours of the lowest and the highest accuracy of a grid; black text is readable on both.
LOWEST, HIGHEST = (250, 250, 250), (86, 164, 214)

V = TypeVar("V")

# Marks of the best cell and of the best sigma of each M.
BEST, COLUMN_BEST = "*", "°"


@dataclass(frozen=True, eq=False)
class SweepReport:
    """A sweep with its best settings.

    Attributes:
        sweep: result of the sweep.
        cells: accuracies of all cells, ordered by vote, then M, then sigma.
        peaks: the best sigma of each vote and M.
        best: the best of all cells.
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
        """The best sigma at the vote and M of the best cell."""
        return self.best.peak

    @property
    def criterion_label(self) -> str:
        """Label of the accuracy by which settings are compared: the name of the attack, or `clean`."""
        setting = self.sweep.setting
        return format_attack(setting["attack"], setting["steps"]) if self.sweep.attacked else "clean"

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values: one row for each cell, the peaks and the best cell."""
        return {
            "protocol": "sweep",
            "data": self.sweep.data,
            "criterion": "robust" if self.sweep.attacked else "clean",
            "best": self.best.to_json(),
            "peaks": [peak.to_json() for peak in self.peaks],
            "rows": [self.sweep.row(cell) for cell in self.cells],
        }


def attack_with_eps(setting: Mapping[str, Any]) -> str:
    """The attack of a sweep's setting with its radius: `PGD-7, L-inf 8/255`."""
    radius = format_eps(setting["eps"], setting["norm"])
    return f"{format_attack(setting['attack'], setting['steps'])}, {radius}"


def sweep_grid(report: SweepReport) -> Table:
    """A table with one line for each sigma and one column for each M, for the vote of the best cell.

    The cells show the accuracy by which settings are compared, in %. Further columns show its interval at the largest M
    and, with an attack, clean accuracy at the largest M.
    """
    sweep, best = report.sweep, report.peak.cell
    table = FittedTable(_title(report), caption=_legend(report), caption_justify="left", box=box.SIMPLE_HEAD, padding=0)
    counts = thinned(sweep.num_samples, best.num_samples, COLUMNS)
    headers = ["sigma", f"M = {counts[0]}", *map(str, counts[1:]), "95 %", *(["clean"] if sweep.attacked else [])]
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    cells = {(cell.sigma, cell.num_samples): cell for cell in report.cells if cell.vote == best.vote}
    peaks = {peak.cell.num_samples: peak.cell for peak in report.peaks if peak.cell.vote == best.vote}
    values = [cell.criterion.mean for cell in cells.values()]
    for sigma in thinned(sweep.sigmas, best.sigma, LINES):
        line = [cells[sigma, count] for count in counts]
        accuracies = [_shaded(cell, min(values), max(values), _mark(cell, best, peaks)) for cell in line]
        clean = [f" {100 * line[-1].clean.mean:.1f}"] if sweep.attacked else []
        table.add_row(f"{sigma:.4g}", *accuracies, f" {format_interval(line[-1].criterion.interval)}", *clean)
    return table


def peaks_table(report: SweepReport) -> Table:
    """A table with one column for each vote: its best sigma at the M of the best cell, and gains over other sigmas."""
    count = report.peak.cell.num_samples
    peaks = [peak for peak in report.peaks if peak.cell.num_samples == count]
    table = FittedTable(f"Each vote at its best sigma, M = {count}", box=box.SIMPLE_HEAD)
    table.add_column("")
    for peak in peaks:
        table.add_column(Words(peak.cell.vote + (BEST if peak is report.peak else "")), justify="right")
    lines: dict[str, Callable[[Peak], str]] = {
        "best sigma": lambda peak: f"{peak.cell.sigma:.4g}",
        f"{report.criterion_label} %": lambda peak: f"{100 * peak.cell.criterion.mean:.1f}",
        "95 % interval": lambda peak: format_interval(peak.cell.criterion.interval),
        "may be the best": lambda peak: format_ranges(peak.candidates, report.sweep.sigmas),
        "gain over sigma 0": lambda peak: _gain_over(peak, 0.0),
        "gain over next lower": lambda peak: _gain_over(peak, _neighbour(report.sweep, peak, -1)),
        "gain over next higher": lambda peak: _gain_over(peak, _neighbour(report.sweep, peak, 1)),
    }
    for name, text in lines.items():
        table.add_row(Words(name), *(text(peak) for peak in peaks))
    return table


def sweep_sentences(report: SweepReport) -> list[str]:
    """The best cell in words, and which differences to other sigmas, Ms and votes are significant."""
    parts = (_best_sentence, _sigma_sentence, _gain_sentence, _draws_sentence, _votes_sentence)
    return [sentence for part in parts if (sentence := part(report))]


def selection_warning(data: str) -> str:
    """Warning for a sweep on test images: selecting on them biases the accuracy of the selected setting."""
    return (
        f"these are test images ({data}); select sigma and M on other images (--split validation), "
        "because the best of many cells overestimates its accuracy"
    )


def thinned(values: Sequence[V], best: V, most: int) -> list[V]:
    """About `most` evenly spread ones of ordered values, always with the best value, its neighbours and both ends."""
    step, position = -(-len(values) // most), values.index(best)
    kept = {0, position - 1, position, position + 1, len(values) - 1} | set(range(0, len(values), step))
    return [value for number, value in enumerate(values) if number in kept]


def _best_sentence(report: SweepReport) -> str:
    cell = report.peak.cell
    accuracies = f"{format_accuracy(cell.clean)} on clean images"
    if cell.robust:
        accuracies = f"{format_accuracy(cell.robust)} under {report.criterion_label}, {accuracies}"
    sigma = format_sigma(cell.sigma, report.sweep.normalized(cell.sigma))
    setting = f"{sigma}, {cell.vote} vote, M = {cell.num_samples}"
    return f"Best setting on these {report.sweep.images} images: {setting}, with {accuracies} (95 % intervals)."


def _sigma_sentence(report: SweepReport) -> str:
    candidates, sigmas = report.peak.candidates, report.sweep.sigmas
    if len(sigmas) == 1:
        return "Only one sigma was measured, so there is nothing to compare it with."
    if len(candidates) == 1:
        return "No other sigma can be the best (95 % confidence)."
    if len(candidates) == len(sigmas):
        return f"These images can't tell which of the {len(sigmas)} sigmas is the best; use more images."
    ranges = format_ranges(candidates, sigmas)
    return (
        f"The best sigma is one of {ranges} ({len(candidates)} of {len(sigmas)}; 95 % confidence); "
        "these images can't tell them apart."
    )


def _gain_sentence(report: SweepReport) -> str:
    versus = report.peak.versus
    if not versus:
        return ""
    gains = ", ".join(
        f"{100 * comparison.gain:+.1f} over {sigma:.4g} ({format_p_value(comparison.p)})"
        for sigma, comparison in versus.items()
    )
    significant = [f"{sigma:.4g}" for sigma, comparison in versus.items() if comparison.significant]
    if not significant:
        verdict = "No gain is significant."
    elif len(significant) == len(versus):
        verdict = "Every gain is significant."
    else:
        verdict = f"Only the gain over {' and '.join(significant)} is significant."
    return f"Gains over other sigmas on the same images, in points: {gains}. {verdict}"


def _draws_sentence(report: SweepReport) -> str:
    cell, fewest = report.peak.cell, report.best.num_samples[0]
    if cell.num_samples == report.sweep.num_samples[0]:
        return ""
    if fewest == cell.num_samples:
        return "At this sigma and vote, fewer draws are significantly worse."
    return (
        f"At this sigma and vote, M = {fewest} is not significantly worse than M = {cell.num_samples}: "
        "fewer draws may suffice."
    )


def _votes_sentence(report: SweepReport) -> str:
    votes, best = report.sweep.votes, report.peak.cell.vote
    if len(votes) == 1:
        return ""
    others = [vote for vote in report.best.votes if vote != best]
    if not others:
        return "At this sigma and M, the other votes are significantly worse."
    subject = f"the {' and '.join(others)} vote{'s are' if len(others) > 1 else ' is'}"
    return f"At this sigma and M, {subject} not significantly worse than the {best} vote."


def _title(report: SweepReport) -> str:
    sweep = report.sweep
    images = attack_with_eps(sweep.setting) if sweep.attacked else "clean images"
    runs = f", {sweep.runs} runs" if sweep.runs > 1 else ""
    return f"{sweep.model}, {sweep.images} images{runs}, {report.peak.cell.vote} vote: accuracy in %, {images}"


def _legend(report: SweepReport) -> str:
    sweep, best = report.sweep, report.peak.cell
    lines = len(thinned(sweep.sigmas, best.sigma, LINES))
    columns = len(thinned(sweep.num_samples, best.num_samples, COLUMNS))
    legend = f"{BEST} best of all, {COLUMN_BEST} best sigma of its M; 95 % interval"
    legend += f"{' and clean accuracy' if sweep.attacked else ''} at M = {sweep.num_samples[-1]}"
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
    share = (cell.criterion.mean - low) / (high - low) if high > low else 0.5
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(LOWEST, HIGHEST, strict=True))
    style = Style(
        color="black", bgcolor=Color.from_triplet(ColorTriplet(red, green, blue)), bold=True if mark.strip() else None
    )
    return Text(f" {100 * cell.criterion.mean:.1f}{mark}", style=style)


def _neighbour(sweep: Sweep, peak: Peak, step: int) -> float | None:
    index = sweep.sigmas.index(peak.cell.sigma) + step
    return sweep.sigmas[index] if 0 <= index < len(sweep.sigmas) else None


def _gain_over(peak: Peak, sigma: float | None) -> str:
    comparison = None if sigma is None else peak.versus.get(sigma)
    return "-" if comparison is None else f"{100 * comparison.gain:+.1f} ({format_p_value(comparison.p)})"
