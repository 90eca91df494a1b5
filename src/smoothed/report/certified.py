"""Certified accuracy as a table in the terminal, and what it says beside the numbers of attacks."""

import math
from collections.abc import Sequence

from rich.table import Table

from smoothed.evaluation.certified import CertifiedRow


def certified_table(rows: Sequence[CertifiedRow]) -> Table:
    """A table with a line for each sigma and radius: percentages with their 95 % intervals."""
    first = rows[0]
    draws = f"{first.selection_samples} + {first.num_samples} draws, alpha {first.alpha:g}"
    table = Table(title=f"{first.model}, {first.images} images, {draws}", title_justify="left")
    for name in ("sigma", "L2 radius", "in 1/255 L-inf", "certified %", "95 % interval"):
        table.add_column(name, justify="right")
    previous = first
    for row in rows:
        if row.sigma != previous.sigma:
            table.add_section()
        previous = row
        table.add_row(
            f"{row.sigma:g}",
            f"{row.radius:g}",
            f"{255 * row.linf_eps:.2f}",
            f"{100 * row.certified:.2f}",
            _interval(row.certified_interval),
        )
    return table


def certified_sentence(row: CertifiedRow) -> str:
    """What all radii of one sigma have in common, from any of its rows."""
    return (
        f"At sigma {row.sigma:g} ({row.sigma_units}; {row.sigma_pixel:.4g} in pixels): "
        f"PREDICT is right on {row.clean:.1%} ({_interval(row.clean_interval)}) "
        f"and abstains on {row.predict_abstained:.1%} ({_interval(row.predict_abstained_interval)}), "
        f"CERTIFY abstains on {row.abstained:.1%} ({_interval(row.abstained_interval)}); "
        f"the mean radius is {row.mean_radius:.4g}."
    )


def linf_sentence(row: CertifiedRow, eps: float = 8 / 255) -> str:
    """Why certified accuracy and accuracy under an L-inf attack are two things, and what `eps` would take."""
    return (
        "A certificate holds against every attack in its L2 ball, with probability 1 - alpha an image; accuracy under "
        "an L-inf attack is what that one attack left. "
        f"An L2 radius r covers the L-inf ball of eps = r / sqrt({row.dimensions}): "
        f"eps = {255 * eps:g}/255 would take r = {eps * math.sqrt(row.dimensions):.2f}."
    )


def _interval(bounds: tuple[float, float]) -> str:
    return f"{100 * bounds[0]:.1f}-{100 * bounds[1]:.1f}"
