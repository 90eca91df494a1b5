"""Write figures to files, in the format that the name of the file asks for."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from smoothed.errors import ArgumentError
from smoothed.utils.files import write_atomically

PLOT_FORMATS = ("eps", "jpg", "pdf", "png", "ps", "svg", "tif", "webp")
"""Suffixes of the files that plots are written to."""


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure of that size in inches, which needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_figure(figure: Figure, path: Path | str) -> Path:
    """Write a figure in the format that the suffix of `path` names; the file is replaced atomically.

    Raises:
        ArgumentError: the suffix is no format of matplotlib.
        OutputError: the file can't be written.
    """
    suffix = check_plot_format(path)
    return write_atomically(path, lambda partial: figure.savefig(partial, format=suffix, dpi=150))


def check_plot_format(path: Path | str) -> str:
    """Return the format that the suffix of `path` names.

    Raises:
        ArgumentError: plots cannot be written in this format.
    """
    suffix = Path(path).suffix.removeprefix(".").lower()
    if suffix not in PLOT_FORMATS:
        raise ArgumentError("plot", f"a file name that ends in .{', .'.join(PLOT_FORMATS)}", Path(path).name)
    return suffix
