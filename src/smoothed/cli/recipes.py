"""`smoothed recipes`: the named training configurations."""

from pathlib import Path
from typing import Annotated

from rich.table import Column, Table

from smoothed.cli.console import errors, output
from smoothed.cli.options import json_option


def recipes(
    json: Annotated[Path | None, json_option("each recipe with all its settings")] = None,
) -> None:
    """List the recipes for `smoothed train --recipe`: the source of each, its settings, and its cost.

    The cost is the number of forward passes that each training image takes in an epoch. A backward pass to the inputs
    counts as one more, a backward pass to inputs and weights as two more. docs/defences.md describes each in two
    sentences and an equation.
    """
    from smoothed.training.cost import forward_equivalents
    from smoothed.training.recipes import RECIPES
    from smoothed.utils.files import require_writable, write_json

    if json is not None:
        require_writable(json)
    table = Table(
        Column("recipe", no_wrap=True),
        Column("source", overflow="fold"),
        Column("settings", overflow="fold"),
        Column("passes", justify="right"),
        Column("epochs", justify="right"),
    )
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
