"""The paper's figures, drawn from the results that are there, with the points that the paper's tables print."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from smoothed.evaluation.results import Result
from smoothed.paper.declaration import CurveSpec, FigureSpec, PanelSpec
from smoothed.paper.folder import RunFolder
from smoothed.report.figures import COLOURS, new_figure

LABELS = {
    "sigma_normalized": "sigma, the paper's unit",
    "budget": "gradients of the attack: k times draws",
    "radius": "radius of the attack, 1/255",
}
LINES = colormaps["viridis_r"]
MARKERS = ("o", "s", "^")
BAND = "95 % interval over images"
PRINTED = {"marker": "x", "linestyle": "none", "color": "#D55E00", "zorder": 5}
"""Style of the paper's printed points."""

# Of the bold title; fewer than fit.
_LETTERS_PER_INCH = 8

Point = tuple[float, float, tuple[float, float]]
"""A value on the x axis, an accuracy in [0, 1], and its 95 % interval."""


def draw(figure: FigureSpec, folder: RunFolder) -> Figure | None:
    """Draw a figure; curves and panels without results are left out. None if nothing has been run.

    Curves of which some points have not been run are drawn as points without a line, and the legend says so.

    Raises:
        DataError: a result is damaged.
    """
    results: dict[str, Result | None] = {}
    panels = []
    for panel in figure.panels:
        curves = [(curve, curve_points(figure, panel, curve, folder, results)) for curve in panel.curves]
        # Curves whose M a schedule cuts down to the same number are drawn once.
        distinct = {_identity(curve, folder): (curve, points) for curve, points in reversed(curves) if points}
        panels.append((panel, list(reversed(distinct.values()))))
    if not any(curves for _, curves in panels):
        return None
    width = 2.4 + 4.6 * len(panels)
    made = new_figure(width, 4.2)
    axes = made.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (panel, curves) in zip(axes, panels, strict=True):
        _draw_panel(axis, figure, panel, curves, folder, results=results)
    axes[0].set_ylabel("accuracy, %")
    lines: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        lines |= dict(zip(labels, handles, strict=True))
    if BAND in lines:  # after the curves, in a colour of none of them
        del lines[BAND]
        lines[BAND] = Patch(color="0.5", alpha=0.25, linewidth=0)
    made.legend(lines.values(), lines, loc="outside right center", frameon=False, fontsize="small")
    title = textwrap.fill(f"{figure.title} (schedule {folder.schedule.name})", int(_LETTERS_PER_INCH * width))
    made.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return made


def curve_points(
    figure: FigureSpec, panel: PanelSpec, curve: CurveSpec, folder: RunFolder, results: dict[str, Result | None]
) -> list[Point]:
    """The points of a curve, ascending in x; none where nothing has been run. `results` keeps what was read."""
    points: dict[float, Point] = {}
    count = folder.schedule.samples(curve.num_samples)
    for source in curve.sources:
        if source.name not in results:
            results[source.name] = folder.load_result(source.name)
        result = results[source.name]
        for row in result.rows if result is not None else ():
            if (row["vote"], row["num_samples"]) != (curve.vote, count) or row[panel.accuracy] is None:
                continue
            x = _abscissa(figure, row)
            points[x] = (x, row[panel.accuracy], tuple(row[f"{panel.accuracy}_interval"]))
            if curve.starts_clean:
                points[0.0] = (0.0, row["clean"], tuple(row["clean_interval"]))
    return [points[x] for x in sorted(points)]


def _abscissa(figure: FigureSpec, row: dict[str, Any]) -> float:
    if figure.x == "budget":
        return float(row["steps"] * row["eot_samples"])
    return round(255 * row["eps"], 6) if figure.x == "radius" else round(row["sigma_normalized"], 6)


def _identity(curve: CurveSpec, folder: RunFolder) -> tuple[Any, ...]:
    return curve.sources, curve.vote, folder.schedule.samples(curve.num_samples)


def _draw_panel(
    axis: Axes,
    figure: FigureSpec,
    panel: PanelSpec,
    curves: Sequence[tuple[CurveSpec, list[Point]]],
    folder: RunFolder,
    *,
    results: Mapping[str, Result | None],
) -> None:
    by_count = len({curve.sources for curve, _ in curves}) == 1 and len({curve.vote for curve, _ in curves}) == 1
    networks = list(dict.fromkeys(curve.sources for curve, _ in curves))
    votes = list(dict.fromkeys(curve.vote for curve, _ in curves))
    for place, (curve, points) in enumerate(curves):
        share = place / max(1, len(curves) - 1)
        colour = LINES(0.12 + 0.83 * share) if by_count else COLOURS[networks.index(curve.sources) % len(COLOURS)]
        x, y = [point[0] for point in points], [100 * point[1] for point in points]
        count = folder.schedule.samples(curve.num_samples)
        label = f"M = {count}" if curve.label.startswith("M = ") else curve.label
        marker = MARKERS[votes.index(curve.vote) % len(MARKERS)]
        incomplete = any(results[source.name] is None for source in curve.sources)
        line, label = ("none", f"{label}, incomplete") if incomplete else ("-", label)
        axis.plot(x, y, color=colour, marker=marker, markersize=3, linewidth=1.4, linestyle=line, label=label)
        # The bands of many curves would overlap.
        if place == len(curves) - 1 if by_count else len(curves) <= len(COLOURS):
            low, high = ([100 * point[2][end] for point in points] for end in (0, 1))
            if incomplete:
                axis.vlines(x, low, high, color=colour, alpha=0.3, linewidth=4, label=BAND)
            else:
                axis.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0, label=BAND)
    printed = {x: numbers for curve, _ in curves for x, numbers in curve.published.items()}
    for x, numbers in printed.items():
        value, deviation = getattr(numbers, panel.accuracy), getattr(numbers, f"{panel.accuracy}_std")
        if value is not None:
            axis.errorbar([x], [value], [deviation or 0.0], label="printed in the paper's Table 4", **PRINTED)
    if figure.x == "budget":
        axis.set_xscale("log", base=2)
    axis.set_title(panel.title, loc="left", fontweight="bold")
    axis.set_xlabel(LABELS[figure.x])
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
