"""Findings of the gradient-masking checks as a table in the terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from smoothed.evaluation.gradient_masking import Finding, Verdict

STYLES: dict[Verdict, str] = {"pass": "green", "suspicious": "bold red", "unclear": "yellow"}


def gradient_masking_table(findings: Sequence[Finding], title: str) -> Table:
    """A table with one row for each check: the tested property with its interpretation, the figures, the verdict."""
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("check", ratio=5)
    table.add_column("figures", ratio=5)
    table.add_column("verdict", no_wrap=True)
    for finding in findings:
        check = Text(finding.name, style="bold").append(f"\n{finding.meaning}", style="not bold dim")
        figures = Text("\n".join(map(str, finding.figures)))
        table.add_row(check, figures, Text(finding.verdict, style=STYLES[finding.verdict]))
    return table
