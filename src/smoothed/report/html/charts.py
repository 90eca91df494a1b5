"""Line charts as numbers that a template draws as SVG: scaled points, ticks and whiskers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

# Size of a chart and the place of its axes, in units of the SVG.
WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 12, 44

# Distance by which curves are moved apart sideways, so that their intervals do not hide each other.
ASIDE = 3.0

# The largest number of ticks with labels on the x axis.
MOST_TICKS = 9

# Patterns of dashes and shapes of markers, which tell curves apart without colours.
DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 2", "1 2")
MARKERS = ("circle", "square", "triangle", "diamond", "cross", "ring")

Scale = Literal["linear", "log"]


@dataclass(frozen=True)
class ChartPoint:
    """A point of a curve, and its 95 % interval if it has one; y is a fraction, shown in percent."""

    x: float
    y: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class ChartCurve:
    """A named line through points, or a staircase that falls after each point."""

    name: str
    points: Sequence[ChartPoint]
    steps: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves over a common axis.

    Attributes:
        title: what is shown against what.
        x_label: name of the x axis with its unit.
        y_label: name of the y axis.
        curves: the curves; those without points are not drawn.
        scale: scale of the x axis; `log` has base 2.
        y_range: ends of the y axis; None for the smallest range of whole tens of percent that holds all points.
        x_percent: whether x is a fraction, shown in percent as y is.
        diagonal: whether to draw the line y = x, of a calibrated classifier.
        note: a sentence below the chart.
    """

    title: str
    x_label: str
    y_label: str
    curves: Sequence[ChartCurve]
    scale: Scale = "linear"
    y_range: tuple[float, float] | None = None
    x_percent: bool = False
    diagonal: bool = False
    note: str = ""


@dataclass(frozen=True)
class DrawnChart:
    """Scaled numbers of a chart for the template; see `drawn`."""

    chart: Chart
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    curves: list[dict[str, Any]] = field(default_factory=list)
    diagonal: tuple[float, float, float, float] | None = None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM

    @property
    def has_intervals(self) -> bool:
        """Whether a point has an interval, which is drawn as a line through it."""
        return any(curve["whiskers"] for curve in self.curves)


def drawn(charts: Sequence[Chart], y_range: tuple[float, float] | None = None) -> list[DrawnChart]:
    """The charts with scaled numbers; those without a fixed `y_range` share one, so that they can be compared.

    Args:
        charts: the charts; those without points are left out.
        y_range: what they share; None for the `common_range` of the charts.
    """
    shared = y_range or common_range(charts)
    shown = [chart for chart in charts if any(curve.points for curve in chart.curves)]
    return [_drawn(chart, chart.y_range or shared) for chart in shown]


def common_range(charts: Sequence[Chart]) -> tuple[float, float]:
    """The smallest range of whole tens of percent for all points and intervals of the charts without a `y_range`."""
    values = [
        value
        for chart in charts
        if chart.y_range is None
        for curve in chart.curves
        for point in curve.points
        for value in (point.y, *(point.interval or ()))
    ]
    if not values:
        return 0.0, 1.0
    low, high = math.floor(10 * min(values) + 1e-9) / 10, math.ceil(10 * max(values) - 1e-9) / 10
    return (low, high) if high > low else (max(0.0, low - 0.1), min(1.0, low + 0.1))


def _drawn(chart: Chart, y_range: tuple[float, float]) -> DrawnChart:
    xs = sorted({point.x for curve in chart.curves for point in curve.points})
    low, high = (min(xs), max(xs)) if not chart.diagonal else (0.0, 1.0)
    if low == high:
        low, high = (low / 2, high * 2) if chart.scale == "log" else (low - 0.5, high + 0.5)

    def across(x: float) -> float:
        place, start, end = (math.log2(x), math.log2(low), math.log2(high)) if chart.scale == "log" else (x, low, high)
        return round(LEFT + 8 + (place - start) / (end - start) * (WIDTH - LEFT - RIGHT - 16), 1)

    def down(y: float) -> float:
        return round(HEIGHT - BOTTOM - (y - y_range[0]) / (y_range[1] - y_range[0]) * (HEIGHT - BOTTOM - TOP), 1)

    shown = [curve for curve in chart.curves if curve.points]
    curves = [
        _drawn_curve(curve, number, (number - (len(shown) - 1) / 2) * ASIDE, across, down)
        for number, curve in enumerate(shown)
    ]
    ends = (across(low), down(y_range[0]), across(high), down(y_range[1])) if chart.diagonal else None
    return DrawnChart(
        chart,
        [(across(x), f"{100 * x if chart.x_percent else x:.3g}") for x in _x_ticks(chart, xs, low, high)],
        [(down(y), f"{100 * y:.0f}") for y in _y_ticks(*y_range)],
        curves,
        ends,
    )


def _drawn_curve(
    curve: ChartCurve, number: int, aside: float, across: Callable[[float], float], down: Callable[[float], float]
) -> dict[str, Any]:
    """The scaled numbers of a curve, moved to the right by `aside` unless it is a staircase."""
    shift = 0.0 if curve.steps else aside
    points = [(round(across(point.x) + shift, 1), down(point.y)) for point in curve.points]
    whiskers = [
        (x, down(point.interval[0]), down(point.interval[1]))
        for (x, _), point in zip(points, curve.points, strict=True)
        if point.interval
    ]
    return {
        "name": curve.name,
        "path": _path(points, curve.steps),
        "points": points,
        "whiskers": whiskers,
        "colour": number % 6 + 1,
        "dash": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
        "steps": curve.steps,
    }


def _path(points: Sequence[tuple[float, float]], steps: bool) -> str:
    """The `d` of an SVG path through the points; a staircase keeps its height until the next point."""
    parts = [f"M{points[0][0]} {points[0][1]}"]
    for x, y in points[1:]:
        parts.append(f"H{x}V{y}" if steps else f"L{x} {y}")
    return "".join(parts)


def _x_ticks(chart: Chart, xs: Sequence[float], low: float, high: float) -> list[float]:
    """The values of the points if they are few, else round numbers in the range."""
    places = [math.log2(x) for x in xs] if chart.scale == "log" else xs
    if not chart.diagonal and len(xs) <= MOST_TICKS and _apart(places):
        return list(xs)
    if chart.scale == "log":
        first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
        every = max(1, math.ceil((last - first + 1) / MOST_TICKS))
        return [2.0**power for power in range(first, last + 1, every)] if last > first else [low, high]
    step = _round_step((high - low) / 5)
    count = math.floor((high - low) / step + 1e-9)
    first = math.ceil(low / step - 1e-9)
    return [(first + number) * step for number in range(count + 1) if (first + number) * step <= high + 1e-9]


def _apart(xs: Sequence[float]) -> bool:
    """Whether labels at these values do not overlap on an axis that ends with the first and the last one."""
    return all(second - first >= (xs[-1] - xs[0]) / 11 for first, second in pairwise(xs))


def _round_step(step: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def _y_ticks(low: float, high: float) -> list[float]:
    step = 0.05 if high - low <= 0.21 else 0.1 if high - low <= 0.61 else 0.2
    first = math.ceil(low / step - 1e-9)
    return [(first + number) * step for number in range(math.floor((high - first * step) / step + 1e-9) + 1)]
