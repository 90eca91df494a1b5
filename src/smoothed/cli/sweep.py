"""`smoothed sweep`: accuracy at every sigma, vote and M, and where it peaks."""

from dataclasses import dataclass
from typing import Annotated, Any

from smoothed.cli.choices import NOISES
from smoothed.cli.console import command_line, is_main_process, progress, warn
from smoothed.cli.options import (
    OWN_CODE,
    SEVERAL_NUM_SAMPLES_HELP,
    SIGMAS_HELP,
    VOTES_HELP,
    DataOptions,
    ModelOptions,
    NoisesOptions,
    OneAttackOptions,
    Plot,
    PrecisionRunOptions,
    Runs,
    vote_option,
)
from smoothed.cli.parsing import names
from smoothed.errors import ArgumentError

DEFAULT_SIGMAS = "0:0.5:0.05"


@dataclass(frozen=True)
class SweptOptions(NoisesOptions):
    """Every smoothed classifier of the sweep."""

    noise: Annotated[
        str,
        vote_option(
            f"Input noise: {names(NOISES)}, or {OWN_CODE} of a function of a deviation that returns the noise."
        ),
    ] = "gaussian"  # pyright: ignore[reportIncompatibleVariableOverride]
    sigma: Annotated[
        str | None,
        vote_option(SIGMAS_HELP, metavar="LIST", show_default=f"--sigma-normalized {DEFAULT_SIGMAS}"),
    ] = None
    votes: Annotated[str, vote_option(VOTES_HELP, metavar="LIST")] = "all"
    num_samples: Annotated[
        str,
        vote_option(SEVERAL_NUM_SAMPLES_HELP, metavar="LIST"),
    ] = "1,2,4,..,64"


def sweep(
    model: ModelOptions,
    data: DataOptions,
    attack: OneAttackOptions,
    smoothing: SweptOptions,
    run: PrecisionRunOptions,
    runs: Runs = 1,
    plot: Plot = None,
) -> None:
    """Measure accuracy at every sigma, vote and M, and test where it peaks.

    Each sigma is attacked once and drawn once, for the largest M: all M and all votes are read off the same draws.
    All sigmas use the same random numbers, scaled, so that they are compared image by image.

    Examples:
        smoothed sweep --data cifar10 --split validation --plot sweep.png
        smoothed sweep --attack none --sigma 0:0.12:0.02 --images 200
    """
    from smoothed.api.sweep import sweep as measure
    from smoothed.cli.inputs import CommandInputs, warn_of_unit
    from smoothed.cli.own import own_votes
    from smoothed.cli.parsing import choices, integers
    from smoothed.cli.results import check_files, show_result
    from smoothed.report.sweep import selection_warning
    from smoothed.smoothing.votes import VOTES
    from smoothed.utils.distributed import leaving_process_group
    from smoothed.utils.imports import is_object_name

    attack.check()
    check_files(run.json, plot, run.report)
    votes = choices(smoothing.votes, "votes", VOTES)
    counts = integers(smoothing.num_samples, "num-samples")
    noises = _noise_arguments(smoothing)
    inputs = CommandInputs.load(model, data)
    warn_of_unit(noises["sigmas"] or (), inputs.smoothing_card)
    with (
        leaving_process_group(),
        progress("voting" if attack.attack == "none" else "attacking and voting") as on_progress,
    ):
        result = measure(
            inputs.network,
            inputs.images,
            **noises,
            **inputs.attack(attack),
            votes=own_votes(votes),
            num_samples=counts,
            name=inputs.name,
            runs=runs,
            seed=run.seed,
            precision=run.precision,
            chunk_size=run.chunk_size,
            out=run.out,
            processes=inputs.processes,
            on_progress=on_progress,
            command=command_line(),
        )
    if not is_main_process():
        return
    show_result(result, run.json, plot, run.report)
    if data.split == "test" and not is_object_name(data.data):
        warn(selection_warning(inputs.images.name))


def _noise_arguments(options: SweptOptions) -> dict[str, Any]:
    """The arguments `sigmas`, `sigmas_normalized` and `noise` of the public function."""
    from smoothed.cli.own import own_noise_factory, own_noises
    from smoothed.cli.parsing import numbers
    from smoothed.utils.imports import is_object_name

    is_own = is_object_name(options.noise)
    remedy = (
        f"a sweep makes the noise of each sigma: write a function such as `def noise(sigma): return "
        f"smoothed.Gaussian(sigma)`; noise of one deviation is evaluated by `smoothed evaluate --noise {options.noise}`"
    )
    sigma, normalized = options.sigma, options.sigma_normalized
    if sigma is None and normalized is None:
        if is_own:
            expected = f"--sigma beside --noise {options.noise}, a function of a deviation that returns the noise"
            raise ArgumentError("sigma", expected, "none", remedy)
        normalized = DEFAULT_SIGMAS
    sigmas = None if sigma is None else numbers(sigma, "sigma")
    sigmas_normalized = None if normalized is None else numbers(normalized, "sigma-normalized")
    own_noises(options.noise, sigmas, sigmas_normalized, remedy=remedy)  # raises on what cannot be measured
    noise = own_noise_factory(options.noise, remedy) if is_own else options.noise
    return {"sigmas": sigmas, "sigmas_normalized": sigmas_normalized, "noise": noise}
