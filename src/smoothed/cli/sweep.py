"""`smoothed sweep`: accuracy at every sigma, vote and M of any checkpoint, and where it peaks."""

from pathlib import Path
from typing import Annotated

import typer

from smoothed.attacks import EVALUATION_ATTACKS
from smoothed.attacks.ball import BALLS
from smoothed.attacks.query_based.queries import SEES
from smoothed.cli.console import errors, output, progress_bar, speaks
from smoothed.cli.parsing import choices, fraction, integers, names, numbers
from smoothed.smoothing.input_noise import NOISES
from smoothed.smoothing.votes import VOTES


def sweep(
    model: Annotated[str, typer.Option(help="Name of a bundled checkpoint, or path of one.")] = "resnet20-cni-w",
    data: Annotated[
        str, typer.Option(help="sample (1,000 bundled test images), cifar10, cifar100, or the folder of either.")
    ] = "sample",
    split: Annotated[
        str, typer.Option(help="validation (held out of training: to choose on), test or train.")
    ] = "test",
    sigmas: Annotated[
        str,
        typer.Option(
            "--sigmas",
            "--sigma",
            help="Deviations of the input noise: FIRST:LAST:STEP, with both ends, or 0,0.12,0.24.",
        ),
    ] = "0:0.5:0.05",
    sigma_units: Annotated[
        str,
        typer.Option(help="normalized (the paper's: after division by the data's deviation) or pixel."),
    ] = "normalized",
    num_samples: Annotated[
        str, typer.Option(help="Draws of an image (M): 1,8,64, or 1,2,4,..,512. All are read off the same draws.")
    ] = "1,2,4,..,64",
    votes: Annotated[str, typer.Option(help=f"all, or some of {names(VOTES)}, separated by commas.")] = "all",
    attack: Annotated[
        str, typer.Option(help=f"none (clean images only), or one of {names(EVALUATION_ATTACKS)}.")
    ] = "pgd",
    eps: Annotated[
        float, typer.Option(parser=fraction, metavar="NUMBER", help="Radius of the attack, in pixels of [0, 1].")
    ] = "8/255",  # pyright: ignore[reportArgumentType] - parsed by `fraction`
    norm: Annotated[
        str, typer.Option(help=f"Of the radius: one of {names(BALLS)}; some attacks have their own.")
    ] = "linf",
    steps: Annotated[int, typer.Option(help="Gradient steps of the attack (k).")] = 7,
    attack_samples: Annotated[
        int, typer.Option(help="Draws for each gradient of an expectation, or for each answer (M).")
    ] = 8,
    max_queries: Annotated[int, typer.Option(help="Answers that a black-box attack gets for each image.")] = 1000,
    sees: Annotated[str, typer.Option(help=f"What it sees: one of {names(SEES)}.")] = "logits",
    source: Annotated[
        list[str] | None, typer.Option(help="A checkpoint that transfer attacks; more than once for several.")
    ] = None,
    noise: Annotated[str, typer.Option(help=f"Law of the input noise: one of {names(NOISES)}.")] = "gaussian",
    runs: Annotated[int, typer.Option(help="How often to measure, each with a fresh attack and fresh draws.")] = 1,
    images: Annotated[int | None, typer.Option(help="Use the first N images; all of them if not given.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    precision: Annotated[
        str, typer.Option(help="Of the votes: auto (bf16 where the hardware has units for it), float32 or bf16.")
    ] = "float32",
    chunk_size: Annotated[int, typer.Option(help="Images of one forward pass of the vote; bounds memory.")] = 250,
    out: Annotated[
        Path | None, typer.Option(help="Keep what is done in this folder; after a kill the same command goes on.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write accuracy against sigma, and the heat map of sigma and M, a PNG.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all cells, the peaks and their tests here.")] = None,
) -> None:
    """Measure every sigma, vote and M, and say where accuracy peaks and how sure that is.

    Each sigma is attacked once and drawn once, for the largest M: all Ms and all votes are read off the same draws.
    Sigmas share their random numbers, scaled, so that they are compared image by image.
    """
    from smoothed.checkpoint import load
    from smoothed.cli.evaluated import Evaluated
    from smoothed.errors import ArgumentError
    from smoothed.evaluation.paper_protocol.evaluate import Protocol
    from smoothed.evaluation.sweep.sweep import NO_ATTACK
    from smoothed.evaluation.sweep.sweep import sweep as measure
    from smoothed.report.sweep import SweepReport, caution, peaks_table, sweep_grid, sweep_sentences
    from smoothed.report.sweep_plot import plot_sweep
    from smoothed.utils.distributed import parting
    from smoothed.utils.files import require_writable, write_json

    if source and attack != "transfer":
        raise ArgumentError("source", "--attack transfer beside it", f"--attack {attack}")
    for path in (plot, json):
        if path is not None:
            require_writable(path)
    deviations = numbers(sigmas, "sigmas")
    settings = {
        "attack": attack,
        "eps": eps,
        "norm": norm,
        "steps": steps,
        "attack_samples": attack_samples,
        "max_queries": max_queries,
        "sees": sees,
        "votes": choices(votes, "votes", VOTES),
        "num_samples": tuple(integers(num_samples, "num-samples")),
        "noise": noise,
        "sigma_units": sigma_units,
        "runs": runs,
        "seed": seed,
    }
    evaluated = Evaluated.load(model, data, split, images, precision, chunk_size, out)
    protocol = Protocol(**settings, precision=evaluated.precision)
    sources = {name: load(name, device=evaluated.images.labels.device) for name in source or ()}
    if attack != NO_ATTACK:
        protocol.settled_attack(tuple(sources.values()))  # what it refuses, it refuses before there is a bar
    with parting(), progress_bar() as bar:
        task = bar.add_task("voting" if attack == NO_ATTACK else "attacking and voting")
        found = measure(
            evaluated.network,
            evaluated.images,
            protocol,
            sigmas=deviations,
            name=evaluated.name,
            sources=sources,
            out=evaluated.out,
            chunk_size=evaluated.chunk_size,
            processes=evaluated.processes,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not speaks():
        return
    report = SweepReport.of(found)
    output.print(sweep_grid(report))
    output.print(peaks_table(report))
    for sentence in sweep_sentences(report):
        output.print(sentence)
    if split == "test":
        errors.print(f"warning: {caution(found.data)}", style="yellow")
    if plot is not None:
        errors.print(f"plot written to {plot_sweep(report, plot)}")
    if json is not None:
        errors.print(f"cells written to {write_json(report.to_json(), json)}")
