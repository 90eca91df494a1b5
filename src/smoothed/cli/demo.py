"""`smoothed demo`: a robust classifier, alone and smoothed, on the bundled images."""

from pathlib import Path
from typing import Annotated

import typer

from smoothed.cli import options
from smoothed.cli.console import errors, output, progress_bar

MODEL = "resnet20-cni-w"
COUNTS = (1, 4, 16, 64)


def demo(
    plot: Annotated[Path, typer.Option(help="File for the plot of accuracy against M, as PNG.")] = Path(
        "smoothed-demo.png"
    ),
    images: Annotated[
        int | None, typer.Option(help="Number of images to use, from the first on.", show_default="all 1,000")
    ] = None,
    seed: options.Seed = 0,
    json: options.Json = None,
) -> None:
    """Load the bundled ResNet-20 with noise inside, attack it with PGD-7, and let it vote over 1 to 64 draws.

    The command prints clean and attacked accuracy of one draw and of each vote, with 95 % intervals, and the difference
    that smoothing makes. It needs no download, and takes about a minute on two cores.
    """
    from smoothed.checkpoint import load, locate, read_header
    from smoothed.data.sample import load_sample
    from smoothed.evaluation.paper_protocol.evaluate import PaperProtocol, evaluate
    from smoothed.report.plot import plot_accuracy
    from smoothed.report.table import gain_sentence, rows_table
    from smoothed.smoothing.config import NoiseConfig
    from smoothed.utils.devices import best_device, resolve_precision
    from smoothed.utils.files import require_writable, write_json

    for path in (plot, json):
        if path is not None:
            require_writable(path)
    device = best_device()
    network = load(MODEL, device=device)
    header = read_header(locate(MODEL))
    protocol = PaperProtocol(
        num_samples=COUNTS,
        seed=seed,
        precision=resolve_precision("auto", device),
    )
    with progress_bar() as bar:
        task = bar.add_task("attacking and voting")
        rows = evaluate(
            network,
            load_sample().first(images).to(device),
            protocol,
            noises=[NoiseConfig.from_header(header)],
            name=MODEL,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    output.print(rows_table(rows))
    output.print(gain_sentence(rows))
    own = header.get("smoothing", {})
    output.print(f"Sigma was chosen on {own.get('chosen_on')} images by {own.get('chosen_by')}.")
    output.print(f"The votes ran in {protocol.precision}, the attack in float32.")
    errors.print(f"plot written to {plot_accuracy(rows, plot)}")
    if json is not None:
        errors.print(f"rows written to {write_json([row.to_json() for row in rows], json)}")
