"""`smoothed certify`: certified accuracy of a network that is smoothed with Gaussian noise."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from smoothed.cli.console import command_line, is_main_process, progress
from smoothed.cli.options import (
    DATA_PANEL,
    IMAGES_HELP,
    OUT_HELP,
    DataOptions,
    ModelOptions,
    PrecisionRunOptions,
    Sigmas,
    SigmasNormalized,
    option,
    run_option,
    vote_option,
)

MOST_IMAGES = 100
"""Number of images where `--images` is not given and there are more."""


@dataclass(frozen=True)
class CertifiedDataOptions(DataOptions):
    """The images, few by default."""

    images: Annotated[
        int | None,
        option(DATA_PANEL, IMAGES_HELP, show_default=f"at most {MOST_IMAGES}"),
    ] = None


@dataclass(frozen=True)
class CertificationOptions:
    """The noise and the draws."""

    sigma: Sigmas = None
    sigma_normalized: SigmasNormalized = None
    radii: Annotated[
        str,
        vote_option("L2 radii at which to report certified accuracy, in pixel units of [0, 1].", metavar="LIST"),
    ] = "0,0.05,0.1,0.25,0.5,1"
    alpha: Annotated[float, vote_option("Bound of the probability that an image is certified wrongly.")] = 0.001
    selection_samples: Annotated[int, vote_option("Draws that choose the class (n0).")] = 100
    num_samples: Annotated[
        int, vote_option("Draws that bound the class's probability (n). More draws give larger radii.")
    ] = 1000


@dataclass(frozen=True)
class CertificationRunOptions(PrecisionRunOptions):
    """How it is run."""

    out: Annotated[
        Path | None,
        run_option(f"{OUT_HELP} Other radii or another alpha reuse the draws in it."),
    ] = None


def certify(
    model: ModelOptions, data: CertifiedDataOptions, smoothing: CertificationOptions, run: CertificationRunOptions
) -> None:
    """Certify the class of each image within an L2 radius, or abstain (Cohen et al., 2019).

    Noise inside the network is drawn anew for each vote: the certificate is that of the vote over both noises.

    Examples:
        smoothed certify --sigma 0.12,0.25 --images 100 --out certified
        smoothed certify --radii 0.1,0.2 --num-samples 10000
    """
    from smoothed.api.certify import certify as measure
    from smoothed.cli.inputs import CommandInputs, no_sigma
    from smoothed.cli.parsing import numbers
    from smoothed.cli.results import check_files, show_result
    from smoothed.utils.distributed import leaving_process_group

    check_files(run.json, report=run.report)
    radii = numbers(smoothing.radii, "radii")
    sigma, normalized = smoothing.sigma, smoothing.sigma_normalized
    sigmas = None if sigma is None else numbers(sigma, "sigma")
    sigmas_normalized = None if normalized is None else numbers(normalized, "sigma-normalized")
    inputs = CommandInputs.load(model, data, at_most=MOST_IMAGES)
    noises = inputs.noises(None, sigmas, sigmas_normalized)
    if not noises:
        raise no_sigma(inputs.name)
    with leaving_process_group(), progress("certifying") as on_progress:
        result = measure(
            inputs.network,
            inputs.images,
            noises=noises,
            radii=radii,
            alpha=smoothing.alpha,
            selection_samples=smoothing.selection_samples,
            num_samples=smoothing.num_samples,
            name=inputs.name,
            seed=run.seed,
            precision=run.precision,
            chunk_size=run.chunk_size,
            out=run.out,
            processes=inputs.processes,
            on_progress=on_progress,
            command=command_line(),
        )
    if is_main_process():
        show_result(result, run.json, report=run.report)
