"""Evaluation rows as a table in the terminal, and what smoothing gained in one sentence."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from smoothed.evaluation.paper_protocol.rows import ONE_DRAW, Row
from smoothed.evaluation.worst_case.eot_sweep import SweepRow
from smoothed.evaluation.worst_case.rows import SMOOTHED, WORST, Accuracy, StrongRow


def rows_table(rows: Sequence[Row]) -> Table:
    """A table with a line for each row: percentages, 95 % intervals, and deviations where there are several runs."""
    first = rows[0]
    attack = attack_title(first)
    eps = f"{first.eps * 255:g}/255"
    table = Table(title=f"{first.model}, {first.images} images, {attack} at eps {eps}", title_justify="left")
    table.add_column("vote")
    table.add_column("M", justify="right")
    table.add_column("sigma", justify="right")
    for name in ("clean %", "95 % interval", f"{attack} %", "95 % interval"):
        table.add_column(name, justify="right")
    previous = None
    for row in rows:
        group = (row.vote, row.sigma)
        if previous is not None and group != previous:
            table.add_section()
        previous = group
        vote = "one draw" if row.vote == ONE_DRAW else row.vote
        table.add_row(
            vote,
            str(row.num_samples),
            f"{row.sigma:g}",
            _percent(row.clean, row.clean_std, row.runs),
            _interval(row.clean_interval),
            _percent(row.robust, row.robust_std, row.runs),
            _interval(row.robust_interval),
        )
    return table


def strong_table(rows: Sequence[StrongRow]) -> Table:
    """A table with a line for each attack on each network, the worst case last: percentages of images."""
    last = rows[-1]
    times = list(last.worst)
    shown = {
        "tried on": lambda row: f"{row.attacked:g}",
        "robust": lambda row: _percent(row.robust.mean, row.robust.std, row.runs, digits=1),
        "95 %": lambda row: _interval(row.robust.interval),
        **{f"N = {n}": lambda row, n=n: _mean(row.worst.get(n)) for n in times if n > 1},
        **{_single(n): lambda row, n=n: _mean(row.one_draw.get(n)) for n in times},
        "tied": lambda row: f"{100 * row.tied:.1f}",
    }
    if last.alpha is not None:
        shown["abstained"] = lambda row: f"{100 * row.abstained:.1f}"
    defence = f", {last.vote} vote of M = {last.num_samples}, sigma {last.sigma:g} {last.sigma_units}"
    table = Table(
        title=f"{last.model}, {last.images} images, eps {last.eps * 255:g}/255"
        + (defence if last.network == SMOOTHED else ""),
        caption="% of images: right in one vote (robust), in all of N votes, in single draws (M = 1)",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("attack", no_wrap=True)
    for name in shown:
        table.add_column(name, justify="right", no_wrap=name == "95 %")
    for before, row in zip([None, *rows], rows, strict=False):
        if before is None or before.network != row.network:
            table.add_row(row.network, style="italic")
        table.add_row(
            row.attack,
            *(show(row) for show in shown.values()),
            style="bold" if row.attack == WORST else None,
            end_section=row.attack == WORST,
        )
    return table


def sweep_sentence(rows: Sequence[SweepRow]) -> str:
    """What the sweep over the draws of a gradient found, and whether it was wide enough."""
    found = ", ".join(f"{100 * row.robust.mean:.1f} % with {row.attack_samples}" for row in rows)
    chosen = next(row.attack_samples for row in rows if row.chosen)
    ending = "flat there" if rows[-1].flat else "and not flat yet: give --draws more"
    return f"Draws a gradient, on {rows[0].images} images: {found}; {ending}. The attacks take {chosen}."


def attack_title(row: Row) -> str:
    """The attack as papers write it: PGD-7, FGSM."""
    return row.attack.upper() if row.steps == 1 else f"{row.attack.upper()}-{row.steps}"


def gain_sentence(rows: Sequence[Row], vote: str = "prediction") -> str:
    """What `vote` at its largest M gained over the base network's one draw, in points.

    The vote is named beforehand, not picked by its result.
    """
    base = next(row for row in rows if row.vote == ONE_DRAW)
    smoothed = max((row for row in rows if row.vote == vote), key=lambda row: row.num_samples)
    return (
        f"Smoothing ({vote} vote, {smoothed.num_samples} draws, sigma {smoothed.sigma:g} {smoothed.sigma_units}) "
        f"{_change(base.robust, smoothed.robust)} under {attack_title(base)} "
        f"and {_change(base.clean, smoothed.clean)} on clean images."
    )


def _change(before: float, after: float) -> str:
    points = 100 * (after - before)
    verb = "gained" if points >= 0 else "lost"
    return f"{verb} {abs(points):.1f} points of accuracy ({before:.1%} -> {after:.1%})"


def _single(times: int) -> str:
    return "M = 1" if times == 1 else f"M = 1, N = {times}"


def _mean(accuracy: Accuracy | None) -> str:
    return "-" if accuracy is None else f"{100 * accuracy.mean:.1f}"


def _percent(mean: float, deviation: float, runs: int, digits: int = 2) -> str:
    return f"{100 * mean:.{digits}f}" + (f" ± {100 * deviation:.{digits}f}" if runs > 1 else "")


def _interval(bounds: tuple[float, float]) -> str:
    return f"{100 * bounds[0]:.1f}-{100 * bounds[1]:.1f}"
