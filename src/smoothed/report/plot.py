"""Accuracy against the number of draws, as a figure."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smoothed.evaluation.paper_protocol.rows import ONE_DRAW, Row
from smoothed.report.figures import curve_style, new_figure, write_figure
from smoothed.report.fitted import wrapped
from smoothed.report.format import format_attack, format_eps

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


def accuracy_figure(rows: Sequence[Row], base: str = "one draw, no vote") -> Figure:
    """Clean and robust accuracy against M: one line for each vote with 95 % intervals, and the base network.

    Both panels have the same scale, so that the loss of accuracy to the attack can be read off.

    Args:
        rows: rows of one model and one sigma.
        base: what the legend calls the base network.
    """
    first = rows[0]
    titles = {"clean": "clean images"}
    if first.robust is not None and first.eps is not None and first.norm is not None:
        titles["robust"] = f"{format_attack(first.attack, first.steps)}, {format_eps(first.eps, first.norm)}"
    figure = new_figure(2 + 4 * len(titles), 4)
    axes = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        _draw(axis, rows, name, base)
        axis.set_title("\n".join(wrapped(title, 36)), loc="left", fontweight="bold")
    axes[0].set_ylabel("accuracy, %")
    handles, labels = axes[0].get_legend_handles_labels()
    labels = ["\n".join(wrapped(label, 24)) for label in labels]
    legend = {"loc": "outside right upper", "frameon": False, "handlelength": 3.5}
    figure.legend(handles, labels, title="vote (bars: 95 % interval)", **legend)
    figure.suptitle(f"{first.model}: accuracy against the number of draws ({first.images} images)", x=0.01, ha="left")
    return figure


def _draw(axis: Axes, rows: Sequence[Row], name: str, base: str) -> None:
    of_base = [row for row in rows if row.vote == ONE_DRAW]
    votes = list(dict.fromkeys(row.vote for row in rows if row.vote != ONE_DRAW))
    counts = sorted({row.num_samples for row in rows if row.vote != ONE_DRAW})
    for row in of_base:
        axis.axhline(100 * getattr(row, name), color=BASE_COLOUR, linestyle="--", linewidth=1, label=base)
    for place, vote in enumerate(votes):
        points = sorted((row for row in rows if row.vote == vote), key=lambda row: row.num_samples)
        # Votes are shifted sideways a little, so that their intervals do not overlap.
        x = [row.num_samples * 1.1 ** (place - (len(votes) - 1) / 2) for row in points]
        y = [100 * getattr(row, name) for row in points]
        bounds = [getattr(row, f"{name}_interval") for row in points]
        below = [value - 100 * low for value, (low, _) in zip(y, bounds, strict=True)]
        above = [100 * high - value for value, (_, high) in zip(y, bounds, strict=True)]
        axis.errorbar(x, y, [below, above], capsize=2, elinewidth=1, label=vote, **curve_style(place, len(votes)))
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.minorticks_off()
    axis.set_xlabel("draws, M")
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
