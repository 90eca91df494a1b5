"""Results of the paper's and of the worst-case evaluation as tables in the terminal, with explanatory sentences."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from smoothed.evaluation.paper_protocol.rows import ONE_DRAW, Row
from smoothed.evaluation.results import Accuracy
from smoothed.evaluation.worst_case.eot_sweep import EOTSweepRow
from smoothed.evaluation.worst_case.rows import SMOOTHED, WORST, WorstCaseRow
from smoothed.report.fitted import FittedTable, Words
from smoothed.report.format import format_attack, format_eps, format_interval, format_percent, format_sigma


def rows_table(rows: Sequence[Row], base: str = "one draw") -> Table:
    """A table with one line for each row: percentages with 95 % intervals, and deviations over several runs.

    `base` is the name of the row of the base network.
    """
    first = rows[0]
    title, columns = f"{first.model}, {first.images} images", ["clean %", "95 % interval"]
    if first.robust is not None and first.eps is not None and first.norm is not None:
        attack = format_attack(first.attack, first.steps)
        title += f", {attack}, {format_eps(first.eps, first.norm)}"
        columns += [f"{attack} %", "95 % interval"]
    table = FittedTable(title)
    table.add_column("vote")
    table.add_column("M", justify="right")
    table.add_column("sigma", justify="right")
    for name in columns:
        table.add_column(Words(name), justify="right")
    previous = None
    for row in rows:
        group = (row.vote, row.sigma)
        if previous is not None and group != previous:
            table.add_section()
        previous = group
        vote = base if row.vote == ONE_DRAW else row.vote
        cells = [_percent(row.clean, row.clean_std, row.runs), format_interval(row.clean_interval)]
        if row.robust is not None and row.robust_std is not None and row.robust_interval is not None:
            cells += [_percent(row.robust, row.robust_std, row.runs), format_interval(row.robust_interval)]
        table.add_row(Words(vote), str(row.num_samples), _sigma(row.sigma), *cells)
    return table


def _sigma(sigma: float | None) -> str:
    return "-" if sigma is None else f"{sigma:.4g}"


def worst_case_table(rows: Sequence[WorstCaseRow]) -> Table:
    """A table with one line for each attack on each network, the worst case last: accuracies in percent."""
    last = rows[-1]
    resubmissions = list(last.worst)
    columns = {
        "attacked": lambda row: f"{row.attacked:g}",
        "robust": lambda row: _percent(row.robust.mean, row.robust.std, row.runs, digits=1),
        "95 %": lambda row: format_interval(row.robust.interval),
        **{f"N = {n}": lambda row, n=n: _mean(row.worst.get(n)) for n in resubmissions if n > 1},
        **{_one_draw_column(n): lambda row, n=n: _mean(row.one_draw.get(n)) for n in resubmissions},
        "tied": lambda row: f"{100 * row.tied:.1f}",
    }
    if last.alpha is not None:
        columns["abstained"] = lambda row: f"{100 * row.abstained:.1f}"
    several = "N = n: right in all of n votes; " if max(resubmissions, default=1) > 1 else ""
    classifier = f", {last.vote} vote of M = {last.num_samples}, {format_sigma(last.sigma, last.sigma_normalized)}"
    table = FittedTable(
        f"{last.model}, {last.images} images, {format_eps(last.eps, 'linf')}"
        + (classifier if last.network == SMOOTHED else ""),
        caption="attacked: images with a right vote after the earlier attacks; for the others, the later lines count "
        "new votes on their final examples. Other columns: % of images. robust: right in one vote; "
        f"{several}M = 1: right in a single draw; tied: votes with two equal highest scores",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("attack")
    for name in columns:
        together = " = " in name
        table.add_column(name if together else Words(name), justify="right", no_wrap=together)
    for previous, row in zip([None, *rows], rows, strict=False):
        if previous is None or previous.network != row.network:
            table.add_row(Words(row.network), style="italic")
        table.add_row(
            Words(row.attack),
            *(text(row) for text in columns.values()),
            style="bold" if row.attack == WORST else None,
            end_section=row.attack == WORST,
        )
    return table


def eot_sweep_sentence(rows: Sequence[EOTSweepRow]) -> str:
    """The accuracy at each number of draws per gradient, whether more draws would help, and the chosen number."""
    accuracies = ", ".join(f"{format_percent(row.robust.mean)} with {row.eot_samples}" for row in rows)
    chosen = next(row.eot_samples for row in rows if row.chosen)
    conclusion = (
        "the last increase gained nothing significant (95 % interval)"
        if rows[-1].flat
        else "the attack still gains, so add larger numbers to --eot-samples"
    )
    return (
        f"Robust accuracy by draws per gradient, on {rows[0].images} images: {accuracies}; {conclusion}. "
        f"The attacks average {chosen} draw{'s' if chosen > 1 else ''}."
    )


def _one_draw_column(resubmissions: int) -> str:
    return "M = 1" if resubmissions == 1 else f"M = 1,\nN = {resubmissions}"


def _mean(accuracy: Accuracy | None) -> str:
    return "-" if accuracy is None else f"{100 * accuracy.mean:.1f}"


def _percent(mean: float, deviation: float, runs: int, digits: int = 2) -> str:
    return f"{100 * mean:.{digits}f}" + (f" ± {100 * deviation:.{digits}f}" if runs > 1 else "")
