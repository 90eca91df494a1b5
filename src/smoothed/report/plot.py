"""Accuracy against the number of draws, as a PNG."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from smoothed.evaluation.paper_protocol.rows import ONE_DRAW, Row
from smoothed.report.format import format_attack, format_eps
from smoothed.utils.files import write_atomically

# The palette of Okabe and Ito, which is safe for colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASE_COLOUR = "#666666"


def plot_accuracy(rows: Sequence[Row], path: Path | str) -> Path:
    """Plot clean and robust accuracy against M: one line per vote with 95 % intervals, and the base network.

    Args:
        rows: rows of one model and one sigma, from `evaluate`.
        path: path of the PNG file, which is replaced atomically.

    Returns:
        The path of the file.

    Raises:
        OutputError: the file can't be written.
    """
    figure = Figure(figsize=(9.5, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    first = rows[0]
    attack = format_attack(first.attack, first.steps)
    titles = {"clean": "Clean images", "robust": f"{attack}, eps {format_eps(first.eps, first.norm)}"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        _draw(axis, rows, name)
        axis.set_title(title, loc="left", fontweight="bold")
    axes[0].set_ylabel("accuracy, %")
    axes[1].legend(frameon=False, loc="best")
    figure.suptitle(f"{first.model}: accuracy against the number of draws ({first.images} images)", x=0.01, ha="left")
    return write_atomically(path, lambda partial: figure.savefig(partial, format="png", dpi=150))


def _draw(axis: Axes, rows: Sequence[Row], name: str) -> None:
    base = [row for row in rows if row.vote == ONE_DRAW]
    votes = list(dict.fromkeys(row.vote for row in rows if row.vote != ONE_DRAW))
    counts = sorted({row.num_samples for row in rows if row.vote != ONE_DRAW})
    for row in base:
        axis.axhline(
            100 * getattr(row, name), color=BASE_COLOUR, linestyle="--", linewidth=1, label="one draw, no vote"
        )
    for place, (vote, colour) in enumerate(zip(votes, cycle(COLOURS), strict=False)):
        points = sorted((row for row in rows if row.vote == vote), key=lambda row: row.num_samples)
        # Votes are shifted sideways a little, so that their intervals do not overlap.
        x = [row.num_samples * 1.04 ** (place - (len(votes) - 1) / 2) for row in points]
        y = [100 * getattr(row, name) for row in points]
        bounds = [getattr(row, f"{name}_interval") for row in points]
        below = [value - 100 * low for value, (low, _) in zip(y, bounds, strict=True)]
        above = [100 * high - value for value, (_, high) in zip(y, bounds, strict=True)]
        axis.errorbar(
            x, y, [below, above], color=colour, marker="o", markersize=4, capsize=2, linewidth=1.5, label=vote
        )
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.minorticks_off()
    axis.set_xlabel("draws, M")
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
