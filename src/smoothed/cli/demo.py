"""`smoothed demo`: a robust classifier, alone and smoothed, on the bundled images."""

from pathlib import Path
from typing import Annotated

import typer

from smoothed.cli.console import errors, output, progress_bar

MODEL = "resnet20-cni-w"
COUNTS = (1, 4, 16, 64)


def demo(
    plot: Annotated[Path, typer.Option(help="Where to write accuracy against M, a PNG.")] = Path("smoothed-demo.png"),
    images: Annotated[int | None, typer.Option(help="Use the first N of the 1,000 images; all if not given.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the rows here.")] = None,
) -> None:
    """Load the bundled ResNet-20 with noise inside, attack it with PGD-7, and let it vote over 1 to 64 draws.

    Prints clean and attacked accuracy of the base network and of each vote, with 95 % intervals, and what smoothing
    gained. Needs no download; takes a minute or so on two cores.
    """
    from smoothed.checkpoint import load, locate, own_sigma, read_header
    from smoothed.data.sample import load_sample
    from smoothed.evaluation.paper_protocol.evaluate import Protocol, evaluate
    from smoothed.report.plot import plot_accuracy
    from smoothed.report.table import gain_sentence, rows_table
    from smoothed.utils.devices import best_device, resolve_precision
    from smoothed.utils.files import require_writable, write_json

    for path in (plot, json):
        if path is not None:
            require_writable(path)
    device = best_device()
    network = load(MODEL, device=device)
    sigma, sigma_units = own_sigma(locate(MODEL))
    protocol = Protocol(
        num_samples=COUNTS,
        sigma_units=sigma_units,
        seed=seed,
        precision=resolve_precision("auto", device),
    )
    with progress_bar() as bar:
        task = bar.add_task("attacking and voting")
        rows = evaluate(
            network,
            load_sample().first(images).to(device),
            protocol,
            sigmas=[sigma],
            name=MODEL,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    output.print(rows_table(rows))
    output.print(gain_sentence(rows))
    own = read_header(locate(MODEL)).get("smoothing", {})
    output.print(f"Sigma was chosen on {own.get('chosen_on')} images, by {own.get('chosen_by')}.")
    output.print(f"Votes were taken in {protocol.precision}; attacks in float32.")
    errors.print(f"plot written to {plot_accuracy(rows, plot)}")
    if json is not None:
        errors.print(f"rows written to {write_json([row.to_json() for row in rows], json)}")
