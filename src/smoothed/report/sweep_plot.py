"""A sweep as a figure: accuracy against sigma for every vote and several Ms, and heat maps over sigma and M or vote."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from smoothed.evaluation.results import Accuracy
from smoothed.evaluation.sweep.sweep import Cell
from smoothed.report.figures import curve_style, new_figure, write_figure
from smoothed.report.fitted import wrapped
from smoothed.report.sweep import SweepReport, attack_with_eps

# Largest number of lines for different Ms that stay distinguishable.
MOST_LINES = 5

# Sigmas of a curve up to which each has a marker.
MOST_MARKERS = 20

# Opacity of the intervals, and the width in points of the interval of a single sigma.
FAINT, BAND_WIDTH = 0.13, 10

# Inches: width of a panel, and of the legend beside the panels.
PANEL, LEGEND = 3.5, 2.6

HEAT = colormaps["cividis"]
STAR = {"marker": "*", "s": 170, "color": "black", "edgecolor": "white", "linewidth": 0.9, "zorder": 5}
DOT = {"s": 9, "color": "white", "edgecolor": "#333333", "linewidth": 0.4}


@dataclass(frozen=True)
class Curve:
    """A vote and a number of draws.

    Attributes:
        vote: name of the vote.
        num_samples: M.
        label: what distinguishes the curve from the others of its panel.
    """

    vote: str
    num_samples: int
    label: str


def plot_sweep(report: SweepReport, path: Path | str) -> Path:
    """Write `sweep_figure` to a file, in the format of its suffix.

    Args:
        report: report on a sweep.
        path: path of the file, which is replaced atomically.

    Returns:
        The path of the file.

    Raises:
        ArgumentError: the suffix is no format of plots.
        OutputError: the file can't be written.
    """
    return write_figure(sweep_figure(report), path)


def sweep_figure(report: SweepReport) -> Figure:
    """Clean and robust accuracy against sigma, and below it a heat map of the accuracy by which settings are compared.

    With several Ms, each vote has a column, and its curves and the rows of its heat map are Ms. With one M, there is
    one column, whose curves and rows are votes. Panels beside each other have the same y axis, and the panels of clean
    and of robust accuracy span the same number of points.
    """
    sweep = report.sweep
    columns = _columns(report)
    kinds = {"clean": "clean images"}
    if sweep.attacked:
        kinds["robust"] = attack_with_eps(sweep.setting)
    rows, width = len(kinds) + 1, max(5.2, PANEL * len(columns) + 1.3) + LEGEND
    figure = new_figure(width, 2.7 * rows + 0.6)
    axes = figure.subplots(rows, len(columns), sharex=True, sharey="row", squeeze=False)
    for row, (name, title) in enumerate(kinds.items()):
        for axis, curves in zip(axes[row], columns, strict=True):
            _draw_curves(axis, report, curves, name)
        axes[row, 0].set_ylabel("\n".join(["accuracy, %", *wrapped(title, 28)]))
    _span_alike([axes[row, 0] for row in range(len(kinds))])
    if len(columns) > 1:
        for axis, curves in zip(axes[0], columns, strict=True):
            axis.set_title("\n".join(wrapped(f"{curves[0].vote} vote", 30)), loc="left", fontweight="bold")
    _draw_heat(figure, axes[-1], report, columns)
    figure.suptitle("\n".join(wrapped(_title(report), int(9 * width))), x=0.01, ha="left", fontweight="bold")
    _add_legend(figure, axes[0, 0], columns[0])
    return figure


def _columns(report: SweepReport) -> list[list[Curve]]:
    """The curves of each column of panels, the largest M first."""
    sweep = report.sweep
    if len(sweep.num_samples) == 1:
        return [[Curve(vote, sweep.num_samples[0], f"{vote} vote") for vote in sweep.votes]]
    counts = _spread(sweep.num_samples)[::-1]
    return [[Curve(vote, count, f"M = {count}") for count in counts] for vote in sweep.votes]


def _title(report: SweepReport) -> str:
    """The model, the images, and the vote or M of all curves if they have the same."""
    sweep = report.sweep
    same = [f"{sweep.votes[0]} vote"] if len(sweep.votes) == 1 else []
    same += [f"M = {sweep.num_samples[0]}"] if len(sweep.num_samples) == 1 else []
    return ", ".join([f"{sweep.model}: {sweep.images} images of {sweep.data}", *same])


def _banded(curves: Sequence[Curve]) -> Sequence[Curve]:
    """The curves that are drawn with intervals: up to three votes, or the largest M; more would hide each other."""
    return curves if len({curve.vote for curve in curves}) == len(curves) <= 3 else curves[:1]


def _draw_curves(axis: Axes, report: SweepReport, curves: Sequence[Curve], name: str) -> None:
    every = -(-len(report.sweep.sigmas) // MOST_MARKERS)
    for place, curve in enumerate(curves):
        line = _cells(report, curve.vote, curve.num_samples)
        accuracies: list[Accuracy] = [getattr(cell, name) for cell in line]
        sigmas = [cell.sigma for cell in line]
        style = curve_style(place, len(curves))
        if curve in _banded(curves):
            low, high = np.array([accuracy.interval for accuracy in accuracies]).T * 100
            band = {"color": style["color"], "alpha": FAINT}
            if len(sigmas) == 1:
                axis.vlines(sigmas, low, high, linewidth=BAND_WIDTH, **band)
            else:
                axis.fill_between(sigmas, low, high, linewidth=0, **band)
        axis.plot(sigmas, [100 * accuracy.mean for accuracy in accuracies], markevery=every, label=curve.label, **style)
    best = report.peak.cell
    if best.vote in {curve.vote for curve in curves} and name == ("robust" if report.sweep.attacked else "clean"):
        axis.scatter([best.sigma], [100 * best.criterion.mean], **STAR)
    axis.margins(x=0.02)
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _span_alike(axes: Sequence[Axes]) -> None:
    """Give all y axes the largest of their spans, so that slopes and intervals can be compared."""
    limits = [axis.get_ylim() for axis in axes]
    span = max(high - low for low, high in limits)
    margin = 0.04 * span
    for axis, (low, high) in zip(axes, limits, strict=True):
        bottom = max((low + high - span) / 2, -margin)
        top = min(bottom + span, 100 + margin)
        axis.set_ylim(top - span, top)


def _add_legend(figure: Figure, axis: Axes, curves: Sequence[Curve]) -> None:
    """Add a legend of the curves, if there are several, and of all marks, to the right of the panels."""
    lines, labels = axis.get_legend_handles_labels()
    if len(lines) == 1:
        lines, labels = [], []
    banded = _banded(curves)
    which = "" if len(banded) == len(curves) else f",\n{banded[0].label}"
    star = {"marker": "*", "markersize": 13, "color": "black", "markeredgecolor": "white"}
    dot = {"marker": "o", "markersize": 3.5, "color": "white", "markeredgecolor": "#333333", "markeredgewidth": 0.6}
    band = Patch(color=curve_style(0, 1)["color"] if which else "#666666", alpha=2 * FAINT)
    marks = {
        "95 % interval over images" + which: band,
        "best of all": Line2D([], [], linestyle="none", **star),
        "may be the best sigma of\nits vote and M\n(95 % confidence)": Line2D([], [], linestyle="none", **dot),
    }
    labels = [*("\n".join(wrapped(label, 26)) for label in labels), *marks]
    figure.legend([*lines, *marks.values()], labels, loc="outside right upper", frameon=False, handlelength=3.5)


def _draw_heat(figure: Figure, axes: Sequence[Axes], report: SweepReport, columns: Sequence[Sequence[Curve]]) -> None:
    sweep, best = report.sweep, report.peak.cell
    values = [100 * cell.criterion.mean for cell in report.cells]
    scale = Normalize(min(values), max(values))
    by_vote = len(sweep.num_samples) == 1
    for axis, curves in zip(axes, columns, strict=True):
        votes = sweep.votes if by_vote else [curves[0].vote]
        settings = [(vote, count) for vote in votes for count in sweep.num_samples]
        heat = [[100 * cell.criterion.mean for cell in _cells(report, *setting)] for setting in settings]
        axis.pcolormesh(_edges(sweep.sigmas), np.arange(len(settings) + 1) - 0.5, heat, cmap=HEAT, norm=scale)
        for peak in report.peaks:
            if (setting := (peak.cell.vote, peak.cell.num_samples)) in settings:
                axis.scatter(peak.candidates, [settings.index(setting)] * len(peak.candidates), **DOT)
        if (best.vote, best.num_samples) in settings:
            axis.scatter([best.sigma], [settings.index((best.vote, best.num_samples))], **STAR)
        names = ["\n".join(wrapped(vote, 14)) if by_vote else str(count) for vote, count in settings]
        axis.set_yticks(range(len(settings)), names)
        if by_vote:  # in the order of the legend
            axis.invert_yaxis()
        axis.tick_params(axis="y", length=0)
        if len(sweep.sigmas) == 1:
            axis.set_xticks(sweep.sigmas)
        axis.set_xlabel("sigma, pixel units of [0, 1]")
        axis.spines[:].set_visible(False)
    title = attack_with_eps(sweep.setting) if sweep.attacked else "clean images"
    axes[0].set_ylabel("\n".join(["vote" if by_vote else "draws, M", *wrapped(title, 28)]))
    figure.colorbar(ScalarMappable(scale, HEAT), ax=axes[-1], label="accuracy, %").outline.set_visible(False)


def _cells(report: SweepReport, vote: str, count: int) -> list[Cell]:
    return [cell for cell in report.cells if (cell.vote, cell.num_samples) == (vote, count)]


def _spread(counts: Sequence[int]) -> list[int]:
    """At most `MOST_LINES` of `counts`, evenly spread, with both ends."""
    if len(counts) <= MOST_LINES:
        return list(counts)
    return [counts[round(place)] for place in np.linspace(0, len(counts) - 1, MOST_LINES)]


def _edges(values: Sequence[float]) -> np.ndarray:
    """Edges of the cells of a heat map: the midpoints between neighbouring values, mirrored at the ends."""
    if len(values) == 1:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    middles = (np.array(values[1:]) + np.array(values[:-1])) / 2
    return np.concatenate([[2 * values[0] - middles[0]], middles, [2 * values[-1] - middles[-1]]])
