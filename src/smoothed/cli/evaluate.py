"""`smoothed evaluate`: clean and attacked accuracy of any checkpoint, alone and smoothed."""

from pathlib import Path
from typing import Annotated

import typer

from smoothed.attacks import EVALUATION_ATTACKS
from smoothed.cli.console import errors, output, progress_bar
from smoothed.cli.parsing import fraction, integers, names, numbers
from smoothed.noise import NOISES
from smoothed.votes import VOTES


def evaluate(
    model: Annotated[str, typer.Option(help="Name of a bundled checkpoint, or path of one.")] = "resnet20-cni-w",
    data: Annotated[
        str, typer.Option(help="sample (1,000 bundled test images), cifar10, cifar100, or the folder of either.")
    ] = "sample",
    split: Annotated[str, typer.Option(help="test, validation (held out of training) or train.")] = "test",
    attack: Annotated[str, typer.Option(help=f"One of {names(EVALUATION_ATTACKS)}.")] = "pgd",
    steps: Annotated[int, typer.Option(help="Gradient steps of the attack (k).")] = 7,
    eps: Annotated[
        float, typer.Option(parser=fraction, metavar="NUMBER", help="L-inf radius of the attack, in pixels of [0, 1].")
    ] = "8/255",  # pyright: ignore[reportArgumentType] - parsed by `fraction`
    attack_samples: Annotated[
        int, typer.Option(help="Draws for each gradient of epgd, epgd-loss and smoothadv (M).")
    ] = 8,
    noise: Annotated[str, typer.Option(help=f"Law of the input noise: one of {names(NOISES)}.")] = "gaussian",
    sigma: Annotated[
        str | None,
        typer.Option(help="Deviation of the input noise, or several: 0,0.12,0.24. The checkpoint's own if not given."),
    ] = None,
    sigma_units: Annotated[
        str | None,
        typer.Option(help="normalized (the paper's and the default: after division by the data's deviation) or pixel."),
    ] = None,
    votes: Annotated[str, typer.Option(help=f"Of {names(VOTES)}, separated by commas.")] = ",".join(VOTES),
    num_samples: Annotated[str, typer.Option(help="Draws of an image (M), separated by commas.")] = "1,8,64",
    runs: Annotated[int, typer.Option(help="How often to measure, each with a fresh attack and fresh draws.")] = 1,
    images: Annotated[int | None, typer.Option(help="Use the first N images; all of them if not given.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    precision: Annotated[
        str, typer.Option(help="Of the votes: auto (bf16 where the hardware has units for it), float32 or bf16.")
    ] = "float32",
    chunk_size: Annotated[int, typer.Option(help="Images of one forward pass of the vote; bounds memory.")] = 250,
    tune: Annotated[
        bool,
        typer.Option(help="Write the sigma with the best robust accuracy into the checkpoint (not with --split test)."),
    ] = False,
    record: Annotated[bool, typer.Option(help="Write the rows into the checkpoint's header.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the rows here.")] = None,
) -> None:
    """Measure clean and attacked accuracy, of one draw and of every vote at every M.

    The attacker sees the whole network and one fresh draw of all noise at each gradient, as in the paper.
    """
    from smoothed.checkpoint import bundled, load, locate, own_sigma, update_header
    from smoothed.data.named import load_images
    from smoothed.devices import best_device, resolve_precision
    from smoothed.errors import ArgumentError
    from smoothed.evaluation.evaluate import Protocol
    from smoothed.evaluation.evaluate import evaluate as measure
    from smoothed.evaluation.tune import choose_sigma, smoothing_card
    from smoothed.files import require_writable, write_json
    from smoothed.report.table import rows_table

    if tune and split != "validation":
        raise ArgumentError("tune", "--split validation", f"--split {split}")
    if (tune or record) and model in bundled():
        raise ArgumentError("model", "the path of a checkpoint of your own to write to", model)
    if sigma is None and sigma_units is not None:
        raise ArgumentError("sigma_units", "--sigma beside it", "none")
    if json is not None:
        require_writable(json)
    device = best_device()
    images_set = load_images(data, split).first(images)
    network = load(model, device=device)
    chosen_sigma, chosen_units = own_sigma(locate(model))
    protocol = Protocol(
        attack=attack,
        eps=eps,
        steps=steps,
        attack_samples=attack_samples,
        votes=tuple(votes.split(",")),
        num_samples=tuple(integers(num_samples, "num-samples")),
        noise=noise,
        sigma_units=sigma_units or (chosen_units if sigma is None else "normalized"),
        runs=runs,
        seed=seed,
        precision=resolve_precision(precision, device),
    )
    with progress_bar() as bar:
        task = bar.add_task("attacking and voting")
        rows = measure(
            network,
            images_set.to(device),
            protocol,
            sigmas=[chosen_sigma] if sigma is None else numbers(sigma, "sigma"),
            name=model,
            chunk_size=chunk_size,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    output.print(rows_table(rows))
    if tune:
        chosen = choose_sigma(rows, protocol.votes[0])
        update_header(locate(model), smoothing=smoothing_card(chosen, rows, images_set.name))
        output.print(f"sigma {chosen.sigma:g} ({chosen.sigma_units}) is now the checkpoint's own")
    if record:
        update_header(locate(model), results=[row.to_json() for row in rows])
    if json is not None:
        errors.print(f"rows written to {write_json([row.to_json() for row in rows], json)}")
