"""`smoothed demo`: a robust classifier, alone and smoothed, on the bundled images."""

from pathlib import Path
from typing import Annotated

from smoothed.cli.console import command_line, progress, show
from smoothed.cli.options import DATA_PANEL, Json, Report, Seed, option, run_option

MODEL = "resnet20-cni-w"
COUNTS = (1, 4, 16, 64)


def demo(
    images: Annotated[
        int | None, option(DATA_PANEL, "Number of images to use, from the first on.", show_default="all 1,000")
    ] = None,
    seed: Seed = 0,
    plot: Annotated[
        Path,
        run_option("File for the plot of accuracy against M; its suffix gives the format: .png, .pdf, .svg."),
    ] = Path("smoothed-demo.png"),
    json: Json = None,
    report: Report = None,
) -> None:
    """Load the bundled ResNet-20 with noise inside, attack it with PGD-7, and let it vote over 1 to 64 draws.

    The command prints clean and attacked accuracy of one draw and of each vote, with 95 % intervals, and the difference
    that smoothing makes. It needs no download, and takes about a minute on two cores.

    Examples:
        smoothed demo
        smoothed demo --images 100 --plot demo.pdf
    """
    from smoothed.api.evaluate import evaluate
    from smoothed.api.load import load
    from smoothed.cli.results import check_files, show_result
    from smoothed.smoothing.config import NoiseConfig
    from smoothed.smoothing.votes import VOTES
    from smoothed.utils.devices import best_device

    check_files(json, plot, report)
    network = load(MODEL, device=best_device())
    header = vars(network)["checkpoint_header"]
    with progress("attacking and voting") as on_progress:
        result = evaluate(
            network,
            "sample",
            noises=[NoiseConfig.from_header(header)],
            votes=tuple(VOTES),
            num_samples=COUNTS,
            images=images,
            name=MODEL,
            seed=seed,
            precision="auto",
            on_progress=on_progress,
            command=command_line(),
        )
    show_result(result, json, plot, report)
    own = header["smoothing"]
    show(f"Sigma was chosen on {own['chosen_on']} images by {own['chosen_by']}.")
    show(f"The votes ran in {result.setting['precision']}, the attack in float32.")
