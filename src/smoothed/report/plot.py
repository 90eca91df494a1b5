"""Accuracy against the number of draws, as a figure."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smoothed.evaluation.paper_protocol.rows import ONE_DRAW, Row
from smoothed.report.figures import new_figure, write_figure
from smoothed.report.format import format_attack, format_eps

# The palette of Okabe and Ito, which is safe for colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASE_COLOUR = "#666666"


def plot_accuracy(rows: Sequence[Row], path: Path | str) -> Path:
    """Write `accuracy_figure` to a file, in the format of its suffix.

    Args:
        rows: rows of one model and one sigma.
        path: path of the file, which is replaced atomically.

    Returns:
        The path of the file.

    Raises:
        ArgumentError: the suffix is no format of plots.
        OutputError: the file can't be written.
    """
    return write_figure(accuracy_figure(rows), path)


def accuracy_figure(rows: Sequence[Row]) -> Figure:
    """Clean and robust accuracy against M: one line for each vote with 95 % intervals, and the base network.

    Both panels have the same scale, so that the loss of accuracy to the attack can be read off.

    Args:
        rows: rows of one model and one sigma.
    """
    first = rows[0]
    titles = {"clean": "clean images"}
    if first.robust is not None and first.eps is not None and first.norm is not None:
        titles["robust"] = f"{format_attack(first.attack, first.steps)}, {format_eps(first.eps, first.norm)}"
    figure = new_figure(1.5 + 4 * len(titles), 4)
    axes = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        _draw(axis, rows, name)
        axis.set_title(title, loc="left", fontweight="bold")
    axes[0].set_ylabel("accuracy, %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, title="vote (bars: 95 % interval)")
    figure.suptitle(f"{first.model}: accuracy against the number of draws ({first.images} images)", x=0.01, ha="left")
    return figure


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
