"""Accuracy on saved adversarial examples as a table in the terminal, with a sentence on their origin."""

from collections.abc import Sequence

from rich.table import Table

from smoothed.evaluation.saved_examples.evaluate import SavedExamplesRow
from smoothed.report.fitted import FittedTable, Words
from smoothed.report.format import format_eps, format_interval


def saved_examples_table(rows: Sequence[SavedExamplesRow]) -> Table:
    """A table with one line for single draws and one for the vote: accuracies in percent with their 95 % intervals."""
    first, last = rows[0], rows[-1]
    table = FittedTable(
        f"{first.model}, {first.images} images, {first.attack}, {format_eps(first.eps, first.norm)}, "
        f"votes per image: {last.votes_per_image}"
    )
    table.add_column("vote")
    for name in ("M", "sigma", "clean %", "95 % interval", f"{first.attack} %", "95 % interval"):
        table.add_column(Words(name), justify="right")
    for row in rows:
        table.add_row(
            Words("one draw" if row is first else row.vote),
            str(row.num_samples),
            "-" if row.sigma is None else f"{row.sigma:.4g}",
            f"{100 * row.clean:.2f}",
            format_interval(row.clean_interval),
            f"{100 * row.robust:.2f}",
            format_interval(row.robust_interval),
        )
    return table


def origin_sentence(row: SavedExamplesRow) -> str:
    """State whether the examples were made on this model and noise, or are a transfer attack."""
    if row.same_classifier:
        return (
            "The examples were made on this model with this noise; these votes use draws that the attack has not seen."
        )
    sigma = "" if row.attacked_sigma is None else f" at sigma {row.attacked_sigma:.4g}"
    return (
        f"The examples were made on {row.attacked_model}{sigma}, "
        "not on this model with this noise: this is accuracy under transfer, and a direct attack may be stronger."
    )
