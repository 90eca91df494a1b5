"""Certified accuracy as a table in the terminal, with sentences that explain it."""

import math
from collections.abc import Sequence

from rich.table import Table

from smoothed.evaluation.certified import CertifiedRow
from smoothed.report.fitted import FittedTable
from smoothed.report.format import format_interval, format_percent, format_sigma


def certified_table(rows: Sequence[CertifiedRow]) -> Table:
    """A table with one line for each sigma and radius: certified accuracy in percent with its 95 % interval."""
    first = rows[0]
    draws = f"{first.selection_samples} + {first.num_samples} draws, alpha {first.alpha:g}"
    table = FittedTable(f"{first.model}, {first.images} images, {draws}")
    for name in ("sigma", "L2 radius", "L-inf in 1/255", "certified %", "95 % interval"):
        table.add_column(name, justify="right")
    previous = first
    for row in rows:
        if row.sigma != previous.sigma:
            table.add_section()
        previous = row
        table.add_row(
            f"{row.sigma:.4g}",
            f"{row.radius:g}",
            f"{255 * row.linf_eps:.2f}",
            f"{100 * row.certified:.2f}",
            format_interval(row.certified_interval),
        )
    return table


def certified_sentence(row: CertifiedRow) -> str:
    """The results at one sigma that do not depend on the radius, from any row of that sigma."""
    return (
        f"At {format_sigma(row.sigma, row.sigma_normalized)}: "
        f"PREDICT is correct on {format_percent(row.clean)} ({format_interval(row.clean_interval)}) of the images "
        f"and abstains on {format_percent(row.predict_abstained)} ({format_interval(row.predict_abstained_interval)}); "
        f"CERTIFY abstains on {format_percent(row.abstained)} ({format_interval(row.abstained_interval)}). "
        f"The mean certified L2 radius is {row.mean_radius:.4g}, where wrong and abstained images count as 0."
    )


def linf_sentence(row: CertifiedRow, eps: float = 8 / 255) -> str:
    """The relation of certified L2 radii to L-inf attacks, with the L2 radius that covers the L-inf radius `eps`."""
    return (
        "A certificate holds against every attack within its L2 radius, with probability 1 - alpha per image; accuracy "
        "under an L-inf attack holds for that attack only. "
        f"The L2 ball of radius r contains the L-inf ball of eps = r / sqrt({row.dimensions}): "
        f"eps = {255 * eps:g}/255 requires r = {eps * math.sqrt(row.dimensions):.2f}."
    )
