"""What figures share: the styles of curves, and files in the format that the name of the file asks for."""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from smoothed.errors import ArgumentError
from smoothed.utils.files import write_atomically

PLOT_FORMATS = ("eps", "jpg", "pdf", "png", "ps", "svg", "tif", "webp")
"""Suffixes of the files that plots are written to."""

# Entries of the metadata that would hold the time of writing, by format.
DATES = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}

# The palette of Okabe and Ito, which is safe for colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")

# Length of a pattern of dashes, in widths of the line.
DASHES = 10.0

# Marker sizes in points: the largest lies at the bottom.
LARGEST, SMALLEST = 7.5, 4.0


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure of that size in inches, which needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def curve_style(place: int, curves: int) -> dict[str, Any]:
    """Arguments of `Axes.plot` for one of several curves, all of which stay visible where they coincide.

    Each curve has a colour, a marker and a pattern of dashes of its own. Later curves lie above earlier ones; their
    dashes are shorter and their markers are smaller, so that the earlier curves show between and around them.

    Args:
        place: place of the curve among the curves, from 0 on.
        curves: number of curves in one panel.
    """
    above = place / max(1, curves - 1)
    dash = DASHES * (1 - place / curves)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "markersize": LARGEST + (SMALLEST - LARGEST) * above,
        "linestyle": "solid" if place == 0 else (0.0, (dash, DASHES - dash)),
        "linewidth": 1.8,
        "zorder": 2 + above / 10,
    }


def write_figure(figure: Figure, path: Path | str) -> Path:
    """Write a figure in the format that the suffix of `path` names; the file is replaced atomically.

    SVG and PDF files of the same figure have the same bytes: they hold no date, and ids that follow from the content.

    Raises:
        ArgumentError: the suffix is no format of matplotlib.
        OutputError: the file can't be written.
    """
    suffix = check_plot_format(path)
    metadata = DATES.get(suffix)
    with rc_context({"svg.hashsalt": "smoothed"}):
        return write_atomically(
            path, lambda partial: figure.savefig(partial, format=suffix, dpi=150, metadata=metadata)
        )


def check_plot_format(path: Path | str) -> str:
    """Return the format that the suffix of `path` names.

    Raises:
        ArgumentError: plots cannot be written in this format.
    """
    suffix = Path(path).suffix.removeprefix(".").lower()
    if suffix not in PLOT_FORMATS:
        raise ArgumentError("plot", f"a file name that ends in .{', .'.join(PLOT_FORMATS)}", Path(path).name)
    return suffix
