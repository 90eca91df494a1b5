"""Certified accuracy as additional lines of the worst-case table."""

from collections.abc import Sequence

from rich.table import Table

from smoothed.evaluation.certified import CertifiedRow
from smoothed.report.fitted import Words
from smoothed.report.format import format_interval

TITLE = "certified, L2"


def add_certified(table: Table, rows: Sequence[CertifiedRow]) -> Table:
    """Add one line for each radius to a `worst_case_table`, in the columns that apply to certificates.

    Certified accuracy is in the column `robust`: no attack within the radius changes the predicted class of these
    images.
    """
    table.add_section()
    table.add_row(Words(TITLE), style="italic")
    for row in rows:
        values = {
            "attack": f"r = {row.radius:.3g}",
            "attacked": str(row.images),
            "robust": f"{100 * row.certified:.1f}",
            "95 %": format_interval(row.certified_interval),
            "abstained": f"{100 * row.abstained:.1f}",
        }
        table.add_row(*(values.get(str(column.header), "-") for column in table.columns))
    return table
