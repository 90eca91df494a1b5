"""`smoothed zoo`: the trained networks of the paper's tables in a checkout of the repository."""

from pathlib import Path
from typing import Annotated, Any

import typer

from smoothed.cli.console import note, show
from smoothed.cli.options import json_option


def zoo(
    add: Annotated[Path | None, typer.Option(help="Checkpoint of a training run to add.", metavar="FILE")] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the added network, one of the paper's: at, cni-w, high-k, epgd-diverged and others."
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder of the zoo.")] = Path("zoo"),
    json: Annotated[Path | None, json_option("the list")] = None,
) -> None:
    """List the networks of the zoo, with their accuracy on held-out images, or add one.

    Every command takes them as --model zoo/NAME, and `smoothed paper run` does not train them again. Held-out accuracy
    is that of one draw of the noise, in the epoch that was kept. An added file holds the learned strengths of the noise
    in half precision.

    Examples:
        smoothed zoo
        smoothed evaluate --model zoo/cni-w --sigma 0.06
        smoothed zoo --add runs/cni-w/best.safetensors --name cni-w
    """
    from rich import box
    from rich.table import Column, Table

    from smoothed.errors import ArgumentError
    from smoothed.paper.zoo import add_to_zoo, zoo_entries
    from smoothed.report.format import format_percent
    from smoothed.utils.files import require_writable, write_json

    if json is not None:
        require_writable(json)
    if (add is None) != (name is None):
        missing = "name" if name is None else "add"
        raise ArgumentError(missing, "--name and --add FILE together", f"no --{missing}")
    if add is not None and name is not None:
        entry = add_to_zoo(add, name, folder)
        note(f"{entry.path} written, {entry.size / 1e6:.1f} MB, and its card beside it")
    entries = zoo_entries(folder)
    if not entries:
        note(f"no networks in {folder}; --add FILE --name NAME adds one, and --folder names another folder")
    table = Table(
        Column("name", no_wrap=True),
        "title",
        "epochs",
        Column("clean", justify="right"),
        Column("PGD-7", justify="right"),
        Column("MB", justify="right"),
        box=box.SIMPLE_HEAD,
    )
    for entry in entries:
        training: dict[str, Any] = entry.header.get("training", {})
        kept = training.get("validation") or {}
        numbers = [format_percent(kept[key]) if key in kept else "" for key in KEPT]
        table.add_row(
            entry.name,
            entry.title,
            str(training.get("config", {}).get("epochs", "")),
            *numbers,
            f"{entry.size / 1e6:.1f}",
        )
    if entries:
        show(table)
    if json is not None:
        note(f"list written to {write_json([entry.card() for entry in entries], json)}")


KEPT = ("validation_clean", "validation_robust")
