"""A sweep as a figure: for each vote, accuracy against sigma for several Ms, and a heat map over sigma and M."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from smoothed.evaluation.results import Accuracy
from smoothed.evaluation.sweep.sweep import Cell
from smoothed.report.figures import new_figure, write_figure
from smoothed.report.sweep import SweepReport, attack_with_eps

# Largest number of lines that stay distinguishable.
MOST_LINES = 5

# Colours of the lines from few to many draws. The ends of the colour map are left out: they are too light or too dark.
LINE_COLOURS = colormaps["viridis_r"]
LIGHTEST, DARKEST = 0.12, 0.95
HEAT = colormaps["cividis"]
STAR = {"marker": "*", "s": 150, "color": "#D55E00", "edgecolor": "white", "linewidth": 0.8, "zorder": 5}
DOT = {"s": 9, "color": "white", "edgecolor": "#333333", "linewidth": 0.4}

KEY = (
    "Band: 95 % interval over images, at the largest M. "
    "Dot: may be the best sigma of its vote and M (95 % confidence). Star: best of all."
)


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
    """One column for each vote: clean and robust accuracy against sigma, and a heat map over sigma and M."""
    sweep = report.sweep
    kinds = {"clean": "clean images"}
    if sweep.attacked:
        kinds["robust"] = attack_with_eps(sweep.setting)
    rows, columns = len(kinds) + 1, len(sweep.votes)
    figure = new_figure(max(6.5, 3.5 * columns + 1.3), 2.7 * rows + 0.6)
    axes = figure.subplots(rows, columns, sharex=True, sharey="row", squeeze=False)
    for row, (name, title) in enumerate(kinds.items()):
        for column, vote in enumerate(sweep.votes):
            _draw_lines(axes[row, column], report, vote, name)
            if row == 0:
                axes[row, column].set_title(f"{vote} vote", loc="left", fontweight="bold")
        axes[row, 0].set_ylabel(f"accuracy, %\n{title}")
    _draw_heat(figure, axes[-1], report)
    figure.suptitle(f"{sweep.model}: {sweep.images} images of {sweep.data}", x=0.01, ha="left", fontweight="bold")
    lines, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper right", ncols=len(lines), frameon=False)
    figure.supxlabel(KEY, x=0.01, ha="left", fontsize="small", color="#555555")
    return figure


def _draw_lines(axis: Axes, report: SweepReport, vote: str, name: str) -> None:
    counts = _spread(report.sweep.num_samples)
    for place, count in enumerate(counts):
        share = place / (len(counts) - 1) if len(counts) > 1 else 1
        colour = LINE_COLOURS(LIGHTEST + (DARKEST - LIGHTEST) * share)
        line = _cells(report, vote, count)
        accuracies: list[Accuracy] = [getattr(cell, name) for cell in line]
        sigmas = [cell.sigma for cell in line]
        if count == counts[-1]:  # intervals at smaller M have similar widths, and bands would overlap
            low, high = np.array([accuracy.interval for accuracy in accuracies]).T * 100
            axis.fill_between(sigmas, low, high, color=colour, alpha=0.15, linewidth=0)
        marker = "o" if len(sigmas) < 20 else None
        axis.plot(
            sigmas,
            [100 * accuracy.mean for accuracy in accuracies],
            color=colour,
            marker=marker,
            markersize=3,
            linewidth=1.6,
            label=f"M = {count}",
        )
    best = report.peak.cell
    if best.vote == vote and name == ("robust" if report.sweep.attacked else "clean"):
        axis.scatter([best.sigma], [100 * best.criterion.mean], **STAR)
    axis.margins(x=0.02)
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_heat(figure: Figure, axes: Sequence[Axes], report: SweepReport) -> None:
    sweep, best = report.sweep, report.peak.cell
    values = [100 * cell.criterion.mean for cell in report.cells]
    scale = Normalize(min(values), max(values))
    places = range(len(sweep.num_samples))
    for axis, vote in zip(axes, sweep.votes, strict=True):
        heat = [[100 * cell.criterion.mean for cell in _cells(report, vote, count)] for count in sweep.num_samples]
        axis.pcolormesh(_edges(sweep.sigmas), np.arange(len(places) + 1) - 0.5, heat, cmap=HEAT, norm=scale)
        for place, peak in zip(places, (peak for peak in report.peaks if peak.cell.vote == vote), strict=True):
            axis.scatter(peak.candidates, [place] * len(peak.candidates), **DOT)
        if best.vote == vote:
            axis.scatter([best.sigma], [sweep.num_samples.index(best.num_samples)], **STAR)
        axis.set_yticks(places, [str(count) for count in sweep.num_samples])
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("sigma, pixel units of [0, 1]")
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel(f"draws, M\n{attack_with_eps(sweep.setting) if sweep.attacked else 'clean images'}")
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
