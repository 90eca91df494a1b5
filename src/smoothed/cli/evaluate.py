"""`smoothed evaluate`: clean and attacked accuracy of a checkpoint under one attack, for every vote at every M."""

from pathlib import Path
from typing import Annotated

import typer

from smoothed.cli import options
from smoothed.cli.options import ATTACK_PANEL, DEFAULT_MODEL, run_option, vote_option
from smoothed.cli.parsing import names
from smoothed.smoothing.votes import VOTES

EXAMPLES_PANEL = "Saved adversarial examples"

DEFAULT_NUM_SAMPLES = "1,8,64"
EXAMPLES_NUM_SAMPLES = "64"


def evaluate(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of a bundled checkpoint, or path of a checkpoint file.",
            show_default=f"{DEFAULT_MODEL}; with --examples: the attacked one",
        ),
    ] = None,
    data: options.Data = "sample",
    split: options.Split = "test",
    images: options.Images = None,
    attack: options.Attack = "pgd",
    eps: options.Eps = "8/255",  # pyright: ignore[reportArgumentType] - parsed by `fraction`
    norm: options.Norm = "linf",
    steps: options.Steps = 7,
    eot_samples: options.EotSamples = 8,
    max_queries: options.MaxQueries = 1000,
    sees: options.Sees = "logits",
    source: options.Source = None,
    noise: options.Noise = "gaussian",
    sigma: options.Sigmas = None,
    sigma_normalized: options.SigmasNormalized = None,
    votes: Annotated[
        str | None,
        vote_option(
            help=f"Votes of the smoothed classifier, separated by commas: all, or some of {names(VOTES)}.",
            show_default="all; with --examples: prediction",
        ),
    ] = None,
    num_samples: Annotated[
        str | None,
        vote_option(
            help="Draws of each vote (the paper's M), separated by commas. All are read off the same draws.",
            show_default=f"{DEFAULT_NUM_SAMPLES}; with --examples: {EXAMPLES_NUM_SAMPLES}",
        ),
    ] = None,
    tune: Annotated[
        bool,
        vote_option(
            "--tune", help="Store the sigma with the best robust accuracy in the checkpoint. Needs --split validation."
        ),
    ] = False,
    examples: Annotated[
        Path | None,
        typer.Option(
            help="File written by `smoothed attack`. Its examples receive fresh votes, in place of an attack.",
            rich_help_panel=EXAMPLES_PANEL,
        ),
    ] = None,
    votes_per_image: Annotated[
        int,
        typer.Option(
            help="Fresh votes on each image, clean and adversarial. The accuracy is their mean.",
            rich_help_panel=EXAMPLES_PANEL,
        ),
    ] = 1,
    runs: options.Runs = 1,
    seed: options.Seed = 0,
    precision: options.Precision = "float32",
    chunk_size: options.ChunkSize = 250,
    out: options.Out = None,
    record: Annotated[bool, run_option("--record", help="Store the rows in the checkpoint's header, too.")] = False,
    json: options.Json = None,
) -> None:
    """Measure clean and attacked accuracy of one draw and of every vote, as the paper does.

    The attacker knows the whole network and sees one fresh draw of all noise at each gradient; an EOT attack averages
    --eot-samples of them. Votes use draws that the attack has not seen. `smoothed worst-case` attacks harder.

    Example: smoothed evaluate --sigma 0,0.03,0.06 --images 500
    """
    from smoothed.checkpoint import bundled
    from smoothed.cli.evaluate_examples import evaluate_examples
    from smoothed.cli.evaluate_paper import evaluate_paper
    from smoothed.errors import ArgumentError
    from smoothed.utils.files import require_writable

    _refuse_ignored_options(context, examples)
    if tune and split != "validation":
        raise ArgumentError("tune", "--split validation", f"--split {split}")
    if (tune or record) and (model or DEFAULT_MODEL) in bundled():
        raise ArgumentError("model", "the path of a checkpoint of your own to write to", model or DEFAULT_MODEL)
    options.require_transfer(source, attack)
    if json is not None:
        require_writable(json)
    common = {
        "data": data,
        "split": split,
        "images": images,
        "law": noise,
        "sigma": sigma,
        "sigma_normalized": sigma_normalized,
        "seed": seed,
        "precision": precision,
        "chunk_size": chunk_size,
        "out": out,
        "json": json,
    }
    if examples is not None:
        evaluate_examples(
            examples,
            model,
            **common,
            votes=votes or "prediction",
            num_samples=num_samples or EXAMPLES_NUM_SAMPLES,
            votes_per_image=votes_per_image,
        )
        return
    evaluate_paper(
        model or DEFAULT_MODEL,
        **common,
        attack=attack,
        eps=eps,
        norm=norm,
        steps=steps,
        eot_samples=eot_samples,
        max_queries=max_queries,
        sees=sees,  # pyright: ignore[reportArgumentType] - checked where it is used
        source=source,
        votes=votes or "all",
        num_samples=num_samples or DEFAULT_NUM_SAMPLES,
        runs=runs,
        tune=tune,
        record=record,
    )


def _refuse_ignored_options(context: typer.Context, examples: Path | None) -> None:
    """Raise `ArgumentError` on an option that has no effect with, or without, `--examples`."""
    from smoothed.errors import ArgumentError

    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is None or source.name != "COMMANDLINE":
            continue
        of_attack = getattr(option, "rich_help_panel", None) == ATTACK_PANEL or option.name in (
            "tune",
            "record",
            "runs",
        )
        if examples is not None and of_attack:
            raise ArgumentError(str(option.name), "no such option with --examples", "an option of the attack")
        if examples is None and option.name == "votes_per_image":
            raise ArgumentError("votes_per_image", "--examples beside it", "none")
