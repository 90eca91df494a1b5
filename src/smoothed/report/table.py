"""Evaluation rows as a table in the terminal, and what smoothing gained in one sentence."""

from collections.abc import Sequence

from rich.table import Table

from smoothed.evaluation.rows import ONE_DRAW, Row


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


def _percent(mean: float, deviation: float, runs: int) -> str:
    return f"{100 * mean:.2f}" + (f" ± {100 * deviation:.2f}" if runs > 1 else "")


def _interval(bounds: tuple[float, float]) -> str:
    return f"{100 * bounds[0]:.1f}-{100 * bounds[1]:.1f}"
