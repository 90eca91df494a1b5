"""`smoothed download`: download a data set."""

from pathlib import Path
from typing import Annotated

import typer

from smoothed.cli.console import output, progress_bar
from smoothed.cli.options import json_option


def download(
    name: Annotated[str, typer.Argument(help="Name of the data set: cifar10 or cifar100.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder for data sets.", show_default="$SMOOTHED_DATA, or a cache folder")
    ] = None,
    json: Annotated[Path | None, json_option("the data set's name and folder")] = None,
) -> None:
    """Download a data set from its official site, check its MD5 sum and unpack it.

    After an interruption, the same command continues the download.

    Examples:
        smoothed download cifar10
        smoothed download cifar100 --to ~/data
    """
    from smoothed.data.download import download_cifar
    from smoothed.utils.checks import check_choice
    from smoothed.utils.files import require_writable, write_json

    check_choice(name, ("cifar10", "cifar100"), "name")
    if json is not None:
        require_writable(json)

    with progress_bar() as bar:
        task = bar.add_task(f"{name} (bytes)")
        folder = download_cifar(
            name, to, on_progress=lambda there, total: bar.update(task, completed=there, total=total)
        )
    if json is not None:
        write_json({"name": name, "folder": str(folder)}, json)
    output.print(f"{name} is in {folder}")
