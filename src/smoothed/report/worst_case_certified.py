"""Certified accuracy as lines of the strong protocol's table."""

from collections.abc import Sequence

from rich.table import Table

from smoothed.evaluation.certified import CertifiedRow

TITLE = "certified, L2"


def add_certified(table: Table, rows: Sequence[CertifiedRow]) -> Table:
    """Add a line for each radius to `strong_table`, under the columns that mean the same of a certificate.

    The images that are certified with the right class stand under `robust`: no attack within the radius changes the
    vote's class of theirs.
    """
    table.add_section()
    table.add_row(TITLE, style="italic")
    for row in rows:
        low, high = row.certified_interval
        shown = {
            "attack": f"r = {row.radius:.3g}",
            "tried on": str(row.images),
            "robust": f"{100 * row.certified:.1f}",
            "95 %": f"{100 * low:.1f}-{100 * high:.1f}",
            "abstained": f"{100 * row.abstained:.1f}",
        }
        table.add_row(*(shown.get(str(column.header), "-") for column in table.columns))
    return table
