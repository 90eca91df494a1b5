"""`smoothed sweep`: accuracy of a checkpoint at every sigma, vote and M, and where it peaks."""

from pathlib import Path
from typing import Annotated

import typer

from smoothed.attacks import EVALUATION_ATTACKS
from smoothed.cli import options
from smoothed.cli.console import errors, is_main_process, output, progress_bar
from smoothed.cli.options import DEFAULT_MODEL, attack_option, run_option, settled_noises, vote_option
from smoothed.cli.parsing import choices, integers, names
from smoothed.smoothing.votes import VOTES

DEFAULT_SIGMAS = "0:0.5:0.05"


def sweep(
    model: options.Model = DEFAULT_MODEL,
    data: options.Data = "sample",
    split: Annotated[
        str, typer.Option(help="Part of the data: validation (held out of training, to choose on), test or train.")
    ] = "test",
    images: options.Images = None,
    attack: Annotated[
        str, attack_option(help=f"none (clean images only), or the name of the attack: {names(EVALUATION_ATTACKS)}.")
    ] = "pgd",
    eps: options.Eps = "8/255",  # pyright: ignore[reportArgumentType] - parsed by `fraction`
    norm: options.Norm = "linf",
    steps: options.Steps = 7,
    eot_samples: options.EotSamples = 8,
    max_queries: options.MaxQueries = 1000,
    sees: options.Sees = "logits",
    source: options.Source = None,
    noise: options.Noise = "gaussian",
    sigma: Annotated[
        str | None,
        vote_option(
            help="Standard deviations of the input noise in pixel units of [0, 1]: FIRST:LAST:STEP with both ends, "
            "or 0,0.03,0.06.",
            show_default=f"--sigma-normalized {DEFAULT_SIGMAS}",
        ),
    ] = None,
    sigma_normalized: options.SigmasNormalized = None,
    votes: Annotated[str, vote_option(help=f"Votes, separated by commas: all, or some of {names(VOTES)}.")] = "all",
    num_samples: Annotated[
        str,
        vote_option(help="Draws of each vote (M): 1,8,64, or 1,2,4,..,512. All are read off the same draws."),
    ] = "1,2,4,..,64",
    runs: options.Runs = 1,
    seed: options.Seed = 0,
    precision: options.Precision = "float32",
    chunk_size: options.ChunkSize = 250,
    out: options.Out = None,
    plot: Annotated[
        Path | None,
        run_option(help="File for a plot of accuracy against sigma, and a heat map of sigma and M, as PNG."),
    ] = None,
    json: options.Json = None,
) -> None:
    """Measure accuracy at every sigma, vote and M, and test where it peaks.

    Each sigma is attacked once and drawn once, for the largest M: all M and all votes are read off the same draws.
    All sigmas use the same random numbers, scaled, so that they are compared image by image.

    Example: smoothed sweep --data cifar10 --split validation --plot sweep.png
    """
    from smoothed.cli.inputs import CommandInputs
    from smoothed.evaluation.paper_protocol.evaluate import PaperProtocol
    from smoothed.evaluation.sweep.sweep import NO_ATTACK
    from smoothed.evaluation.sweep.sweep import sweep as measure
    from smoothed.report.sweep import SweepReport, peaks_table, selection_warning, sweep_grid, sweep_sentences
    from smoothed.report.sweep_plot import plot_sweep
    from smoothed.smoothing.config import NoiseConfig
    from smoothed.utils.distributed import leaving_process_group
    from smoothed.utils.files import require_writable, write_json

    options.require_transfer(source, attack)
    for path in (plot, json):
        if path is not None:
            require_writable(path)
    if sigma is None and sigma_normalized is None:
        sigma_normalized = DEFAULT_SIGMAS
    noises = settled_noises(sigma, sigma_normalized, noise, NoiseConfig(sigma=0.0))
    settings = {
        "attack": attack,
        "eps": eps,
        "norm": norm,
        "steps": steps,
        "eot_samples": eot_samples,
        "max_queries": max_queries,
        "sees": sees,
        "votes": choices(votes, "votes", VOTES),
        "num_samples": tuple(integers(num_samples, "num-samples")),
        "runs": runs,
        "seed": seed,
    }
    inputs = CommandInputs.load(model, data, split, images, precision, chunk_size, out)
    protocol = PaperProtocol(**settings, precision=inputs.precision)
    sources = inputs.load_sources(source)
    if attack != NO_ATTACK:
        protocol.build_attack(tuple(sources.values()))  # what it refuses, it refuses before there is a bar
    with leaving_process_group(), progress_bar() as bar:
        task = bar.add_task("voting" if attack == NO_ATTACK else "attacking and voting")
        found = measure(
            inputs.network,
            inputs.images,
            protocol,
            noises=noises,
            name=inputs.name,
            sources=sources,
            out=inputs.out,
            chunk_size=inputs.chunk_size,
            processes=inputs.processes,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not is_main_process():
        return
    report = SweepReport.of(found)
    output.print(sweep_grid(report))
    output.print(peaks_table(report))
    for sentence in sweep_sentences(report):
        output.print(sentence)
    if split == "test":
        errors.print(f"warning: {selection_warning(found.data)}", style="yellow")
    if plot is not None:
        errors.print(f"plot written to {plot_sweep(report, plot)}")
    if json is not None:
        errors.print(f"cells written to {write_json(report.to_json(), json)}")
