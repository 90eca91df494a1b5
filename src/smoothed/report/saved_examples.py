"""A judgement of adversarial images as a table in the terminal, and where these come from in a sentence."""

from collections.abc import Sequence

from rich.table import Table

from smoothed.evaluation.saved_examples.evaluate import JudgedRow


def judged_table(rows: Sequence[JudgedRow]) -> Table:
    """A line for single draws and one for the vote: percentages with their 95 % intervals over images."""
    first, last = rows[0], rows[-1]
    radius = f"{first.eps * 255:g}/255" if first.norm == "linf" else f"{first.eps:g} {first.norm}"
    table = Table(
        title=f"{first.model}, {first.images} images, {first.attack} at eps {radius}, "
        f"votes an image: {last.votes_per_image}",
        title_justify="left",
    )
    table.add_column("vote")
    for name in ("M", "sigma", "clean %", "95 % interval", f"{first.attack} %", "95 % interval"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            "one draw" if row is first else row.vote,
            str(row.num_samples),
            f"{row.sigma:g}",
            f"{100 * row.clean:.2f}",
            _interval(row.clean_interval),
            f"{100 * row.robust:.2f}",
            _interval(row.robust_interval),
        )
    return table


def origin_sentence(row: JudgedRow) -> str:
    """Whether the images were made for this network and this noise, which says how much they prove."""
    if row.own:
        return "The images were made on this network with this noise. No attack has seen the draws of these votes."
    return (
        f"The images were made on {row.made_on} at sigma {row.made_at:g}, not on this network with this noise: "
        "an attack on it may leave less."
    )


def _interval(bounds: tuple[float, float]) -> str:
    return f"{100 * bounds[0]:.1f}-{100 * bounds[1]:.1f}"
