"""`smoothed recipes`: what `smoothed train --recipe` takes."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from smoothed.cli.console import errors, output


def recipes(
    json: Annotated[Path | None, typer.Option(help="Write here each recipe with all its settings.")] = None,
) -> None:
    """List the recipes: where each comes from, what it changes, and what an epoch costs.

    The cost is in forward passes for each training image; a backward pass to the inputs counts as one, one to inputs
    and weights as two. Epochs are those of the recipe's schedule.
    """
    from smoothed.training.cost import forward_equivalents
    from smoothed.training.recipes import RECIPES
    from smoothed.utils.files import require_writable, write_json

    if json is not None:
        require_writable(json)
    table = Table(Column("recipe", no_wrap=True), "from", "what it changes", "forwards", "epochs")
    rows = []
    for recipe in RECIPES.values():
        config = recipe.config()
        cost = forward_equivalents(config)
        table.add_row(recipe.name, recipe.source, recipe.changes, str(cost), str(config.epochs))
        about = {"name": recipe.name, "source": recipe.source, "changes": recipe.changes}
        rows.append({**about, "forward_equivalents": cost, "config": config.to_json()})
    output.print(table)
    if json is not None:
        errors.print(f"recipes written to {write_json(rows, json)}")
