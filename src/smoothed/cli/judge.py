"""`smoothed judge`: accuracy of any checkpoint on adversarial images that `smoothed attack` wrote."""

from pathlib import Path
from typing import Annotated

import typer

from smoothed.cli.console import errors, output, progress_bar
from smoothed.cli.parsing import names
from smoothed.smoothing.input_noise import NOISES
from smoothed.smoothing.votes import VOTES


def judge(
    file: Annotated[Path, typer.Argument(help="The file that `smoothed attack --out` wrote.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of a bundled checkpoint, or path of one: the attacked one, or any other.",
            show_default="the attacked one",
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(help="What was attacked: sample (bundled), cifar10, cifar100, or the folder of either."),
    ] = "sample",
    split: Annotated[str, typer.Option(help="test, validation (held out of training) or train.")] = "test",
    images: Annotated[int | None, typer.Option(help="Judge the first N images; all of the file if not given.")] = None,
    noise: Annotated[str, typer.Option(help=f"Law of the input noise: one of {names(NOISES)}.")] = "gaussian",
    sigma: Annotated[
        float | None, typer.Option(help="Deviation of the input noise. The checkpoint's own if not given.")
    ] = None,
    sigma_units: Annotated[
        str | None,
        typer.Option(help="normalized (the paper's and the default: after division by the data's deviation) or pixel."),
    ] = None,
    vote: Annotated[str, typer.Option(help=f"One of {names(VOTES)}.")] = "prediction",
    num_samples: Annotated[int, typer.Option(help="Draws of an image (M).")] = 64,
    votes_per_image: Annotated[
        int, typer.Option(help="Fresh votes on each image, clean and adversarial: the accuracy is their mean.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of all draws. No attack has seen any of them, whatever its seed.")] = 0,
    precision: Annotated[
        str, typer.Option(help="Of the votes: auto (bf16 where the hardware has units for it), float32 or bf16.")
    ] = "float32",
    chunk_size: Annotated[int, typer.Option(help="Images of one forward pass of the vote; bounds memory.")] = 250,
    out: Annotated[
        Path | None, typer.Option(help="Keep what is done in this folder; after a kill the same command goes on.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows here.")] = None,
) -> None:
    """Judge adversarial images by fresh votes of the network they were made on, or of another.

    Refused are a file of other images than --data's, and images outside of the ball that the file states.
    """
    from smoothed.checkpoint import own_sigma
    from smoothed.cli.evaluated import Evaluated
    from smoothed.errors import ArgumentError
    from smoothed.evaluation.saved_examples.evaluate import JudgingProtocol
    from smoothed.evaluation.saved_examples.evaluate import judge as measure
    from smoothed.evaluation.saved_examples.load import Given, attacked_model
    from smoothed.report.saved_examples import judged_table, origin_sentence
    from smoothed.utils.checks import check_classes
    from smoothed.utils.files import require_writable, write_json

    if sigma is None and sigma_units is not None:
        raise ArgumentError("sigma_units", "--sigma beside it", "none")
    if json is not None:
        require_writable(json)
    name = model or attacked_model(file)
    target = Evaluated.load(name, data, split, None, precision, chunk_size, out)
    given = Given.load(file, target.images).first(images)
    check_classes(given.clean.labels, len(target.header["classes"]))
    own, own_units = own_sigma(target.path)
    protocol = JudgingProtocol(
        sigma=own if sigma is None else sigma,
        sigma_units=own_units if sigma is None else sigma_units or "normalized",
        noise=noise,
        vote=vote,
        num_samples=num_samples,
        votes_per_image=votes_per_image,
        seed=seed,
        precision=target.precision,
    )
    with progress_bar() as bar:
        task = bar.add_task("voting")
        rows = measure(
            target.network,
            given,
            protocol,
            name=name,
            out=out,
            chunk_size=chunk_size,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    output.print(judged_table(rows))
    output.print(origin_sentence(rows[0]))
    if json is not None:
        errors.print(f"rows written to {write_json([row.to_json() for row in rows], json)}")
