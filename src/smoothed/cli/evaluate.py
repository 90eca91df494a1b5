"""`smoothed evaluate`: clean and attacked accuracy of any checkpoint, alone and smoothed, by either protocol."""

from pathlib import Path
from typing import Annotated

import typer

from smoothed.attacks import EVALUATION_ATTACKS
from smoothed.attacks.ball import BALLS
from smoothed.attacks.query_based.queries import SEES
from smoothed.cli.parsing import fraction, names
from smoothed.smoothing.input_noise import NOISES
from smoothed.smoothing.votes import VOTES

PAPER = "the paper's protocol"
STRONG = "the strong protocol"
PROTOCOLS = ("paper", "strong")


def evaluate(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="Name of a bundled checkpoint, or path of one.")] = "resnet20-cni-w",
    data: Annotated[
        str, typer.Option(help="sample (1,000 bundled test images), cifar10, cifar100, or the folder of either.")
    ] = "sample",
    split: Annotated[str, typer.Option(help="test, validation (held out of training) or train.")] = "test",
    protocol: Annotated[
        str,
        typer.Option(help="paper (one attack on single draws, as published) or strong (the worst of many attacks)."),
    ] = "paper",
    steps: Annotated[
        int | None, typer.Option(help="Gradient steps of an attack (k).", show_default="7, strong: 100")
    ] = None,
    eps: Annotated[
        float, typer.Option(parser=fraction, metavar="NUMBER", help="Radius of the attack, in pixels of [0, 1].")
    ] = "8/255",  # pyright: ignore[reportArgumentType] - parsed by `fraction`
    noise: Annotated[str, typer.Option(help=f"Law of the input noise: one of {names(NOISES)}.")] = "gaussian",
    sigma: Annotated[
        str | None,
        typer.Option(
            help="Deviation of the input noise, or several: 0,0.12,0.24 (strong: one). "
            "The checkpoint's own if not given."
        ),
    ] = None,
    sigma_units: Annotated[
        str | None,
        typer.Option(help="normalized (the paper's and the default: after division by the data's deviation) or pixel."),
    ] = None,
    votes: Annotated[
        str | None,
        typer.Option(
            help=f"Of {names(VOTES)}, separated by commas (strong: one).", show_default="all, strong: the checkpoint's"
        ),
    ] = None,
    num_samples: Annotated[
        str | None,
        typer.Option(
            help="Draws of an image (M), separated by commas (strong: one).",
            show_default="1,8,64, strong: the checkpoint's or 64",
        ),
    ] = None,
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
    record: Annotated[bool, typer.Option(help="Write the rows into the checkpoint's header.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the rows here.")] = None,
    attack: Annotated[str, typer.Option(help=f"One of {names(EVALUATION_ATTACKS)}.", rich_help_panel=PAPER)] = "pgd",
    norm: Annotated[
        str,
        typer.Option(help=f"Of the radius: one of {names(BALLS)}; some attacks have their own.", rich_help_panel=PAPER),
    ] = "linf",
    attack_samples: Annotated[
        int,
        typer.Option(help="Draws for each gradient of an expectation, or for each answer (M).", rich_help_panel=PAPER),
    ] = 8,
    max_queries: Annotated[
        int, typer.Option(help="Answers that a black-box attack gets for each image.", rich_help_panel=PAPER)
    ] = 1000,
    sees: Annotated[str, typer.Option(help=f"What it sees: one of {names(SEES)}.", rich_help_panel=PAPER)] = "logits",
    source: Annotated[
        list[str] | None,
        typer.Option(help="A checkpoint that transfer attacks; more than once for several.", rich_help_panel=PAPER),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            help="Write the sigma with the best robust accuracy into the checkpoint (not with --split test).",
            rich_help_panel=PAPER,
        ),
    ] = False,
    draws: Annotated[
        str, typer.Option(help="Draws for each gradient (E) that the sweep tries.", rich_help_panel=STRONG)
    ] = "1,4,16,64",
    sweep_images: Annotated[
        int, typer.Option(help="Images that the sweep is made on, the first ones.", rich_help_panel=STRONG)
    ] = 200,
    restarts: Annotated[int, typer.Option(help="Starts of each gradient attack.", rich_help_panel=STRONG)] = 2,
    queries: Annotated[
        int, typer.Option(help="Candidates of Square an image, each the mean of E answers.", rich_help_panel=STRONG)
    ] = 1000,
    resubmissions: Annotated[
        str, typer.Option(help="How often a persistent attacker submits an image (N).", rich_help_panel=STRONG)
    ] = "1,10,100",
    alpha: Annotated[
        float | None,
        typer.Option(help="Let the vote abstain as PREDICT does at this level.", rich_help_panel=STRONG),
    ] = None,
    certify: Annotated[
        bool,
        typer.Option(
            help="Certify the same images within L2 radii, too (Gaussian noise and the prediction vote).",
            rich_help_panel=STRONG,
        ),
    ] = False,
) -> None:
    """Measure clean and attacked accuracy, alone and smoothed.

    paper: one draw and every vote at every M; the attacker sees the whole network and one fresh draw of all noise at
    each gradient. strong: the worst of many attacks on one vote, judged by fresh draws. Its sigma and M are fixed
    beforehand, by --split validation --tune or by you.
    """
    from smoothed.checkpoint import bundled
    from smoothed.cli.evaluate_paper import evaluate_paper
    from smoothed.cli.evaluate_strong import evaluate_strong
    from smoothed.cli.evaluated import Evaluated
    from smoothed.errors import ArgumentError
    from smoothed.utils.checks import check_choice
    from smoothed.utils.files import require_writable

    check_choice(protocol, PROTOCOLS, "protocol")
    _refuse_foreign_options(context, protocol)
    if tune and split != "validation":
        raise ArgumentError("tune", "--split validation", f"--split {split}")
    if (tune or record) and model in bundled():
        raise ArgumentError("model", "the path of a checkpoint of your own to write to", model)
    if sigma is None and sigma_units is not None:
        raise ArgumentError("sigma_units", "--sigma beside it", "none")
    if source and attack != "transfer":
        raise ArgumentError("source", "--attack transfer beside it", f"--attack {attack}")
    if json is not None:
        require_writable(json)
    common = {"eps": eps, "noise": noise, "runs": runs, "seed": seed}
    evaluated = Evaluated.load(model, data, split, images, precision, chunk_size, out)
    if protocol == "paper":
        evaluate_paper(
            evaluated,
            **common,
            attack=attack,
            steps=7 if steps is None else steps,
            attack_samples=attack_samples,
            norm=norm,
            max_queries=max_queries,
            sees=sees,  # pyright: ignore[reportArgumentType] - checked where it is used
            source=source or (),
            sigma=sigma,
            sigma_units=sigma_units,
            votes=votes or ",".join(VOTES),
            num_samples=num_samples or "1,8,64",
            tune=tune,
            record=record,
            json=json,
        )
    else:
        evaluate_strong(
            evaluated,
            **common,
            steps=100 if steps is None else steps,
            sigma=sigma,
            sigma_units=sigma_units,
            vote=votes,
            num_samples=num_samples,
            draws=draws,
            sweep_images=sweep_images,
            restarts=restarts,
            queries=queries,
            resubmissions=resubmissions,
            alpha=alpha,
            certify=certify,
            record=record,
            json=json,
        )


def _refuse_foreign_options(context: typer.Context, protocol: str) -> None:
    """Raise `ArgumentError` on an option of the other protocol: it would change nothing."""
    from smoothed.errors import ArgumentError

    other = {"paper": STRONG, "strong": PAPER}[protocol]
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if getattr(option, "rich_help_panel", None) == other and source is not None and source.name == "COMMANDLINE":
            raise ArgumentError(str(option.name), f"an option of --protocol {protocol}", f"one of {other}")
