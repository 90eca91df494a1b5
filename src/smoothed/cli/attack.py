"""`smoothed attack`: adversarial images of a checkpoint, in a file, with the record of how they were made."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from smoothed.attacks import EVALUATION_ATTACKS
from smoothed.attacks.ball import BALLS
from smoothed.attacks.query_based.queries import SEES
from smoothed.cli.console import errors, output, progress_bar
from smoothed.cli.parsing import fraction, names
from smoothed.smoothing.input_noise import NOISES
from smoothed.smoothing.votes import VOTES


def attack(
    out: Annotated[Path, typer.Option(help="The safetensors file to write: images, labels, index and the record.")],
    model: Annotated[str, typer.Option(help="Name of a bundled checkpoint, or path of one.")] = "resnet20-cni-w",
    data: Annotated[
        str, typer.Option(help="sample (1,000 bundled test images), cifar10, cifar100, or the folder of either.")
    ] = "sample",
    split: Annotated[str, typer.Option(help="test, validation (held out of training) or train.")] = "test",
    images: Annotated[int | None, typer.Option(help="Attack the first N images; all of them if not given.")] = None,
    attack: Annotated[str, typer.Option(help=f"One of {names(EVALUATION_ATTACKS)}.")] = "pgd",
    steps: Annotated[int, typer.Option(help="Gradient steps of the attack (k).")] = 7,
    eps: Annotated[
        float, typer.Option(parser=fraction, metavar="NUMBER", help="Radius of the attack, in pixels of [0, 1].")
    ] = "8/255",  # pyright: ignore[reportArgumentType] - parsed by `fraction`
    norm: Annotated[str, typer.Option(help=f"Of the radius: one of {names(BALLS)}.")] = "linf",
    attack_samples: Annotated[
        int, typer.Option(help="Draws for each gradient of an expectation, or for each answer (M).")
    ] = 8,
    max_queries: Annotated[int, typer.Option(help="Answers that a black-box attack gets for each image.")] = 1000,
    sees: Annotated[str, typer.Option(help=f"What it sees: one of {names(SEES)}.")] = "logits",
    source: Annotated[
        list[str] | None, typer.Option(help="A checkpoint that transfer attacks; more than once for an ensemble.")
    ] = None,
    noise: Annotated[str, typer.Option(help=f"Law of the input noise: one of {names(NOISES)}.")] = "gaussian",
    sigma: Annotated[
        float | None, typer.Option(help="Deviation of the input noise. The checkpoint's own if not given.")
    ] = None,
    sigma_units: Annotated[
        str | None,
        typer.Option(help="normalized (the paper's and the default: after division by the data's deviation) or pixel."),
    ] = None,
    vote: Annotated[str, typer.Option(help=f"That says what the attack did: one of {names(VOTES)}.")] = "prediction",
    num_samples: Annotated[int, typer.Option(help="Its draws of an image (M).")] = 64,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    precision: Annotated[
        str, typer.Option(help="Of the votes: auto (bf16 where the hardware has units for it), float32 or bf16.")
    ] = "float32",
    chunk_size: Annotated[int, typer.Option(help="Images of one forward pass of the vote; bounds memory.")] = 250,
    keep: Annotated[
        Path | None, typer.Option(help="Keep what is done in this folder; after a kill the same command goes on.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the record here, too.")] = None,
) -> None:
    """Write adversarial images, and how they were made.

    The file holds `images` (float32 in [0, 1], as the attack left them), `labels`, `index` (the place of each image in
    its set), and in its header the record: all settings, and the vote's accuracy on clean and on adversarial images.
    """
    from smoothed.attacks import ATTACKS, named_attack
    from smoothed.checkpoint import load, own_sigma
    from smoothed.cli.evaluated import Evaluated
    from smoothed.errors import ArgumentError
    from smoothed.evaluation.paper_protocol.evaluate import Protocol
    from smoothed.evaluation.resume import Records, circumstances, digest
    from smoothed.evaluation.saved_examples.attack import attack_images, levels, save_adversarial
    from smoothed.smoothing.classifier import Smoothed
    from smoothed.utils.checks import check_choice
    from smoothed.utils.files import require_writable, write_json

    check_choice(attack, EVALUATION_ATTACKS, "attack")
    if sigma is None and sigma_units is not None:
        raise ArgumentError("sigma_units", "--sigma beside it", "none")
    for path in (out, json):
        if path is not None:
            require_writable(path)
    target = Evaluated.load(model, data, split, images, precision, chunk_size, None)
    device = next(target.network.parameters()).device
    sources = tuple(load(name, device=device) for name in source or ())
    settled = named_attack(
        attack,
        eps=eps,
        steps=steps,
        num_samples=attack_samples,
        norm=norm,
        max_queries=max_queries,
        sees=sees,
        sources=sources,
    )
    own, own_units = own_sigma(target.path)
    sigma, sigma_units = (own, own_units) if sigma is None else (sigma, sigma_units or "normalized")
    law = Protocol(noise=noise, sigma_units=sigma_units).input_noise(target.network, sigma)
    smoothed = Smoothed(target.network, law, vote=vote, num_samples=num_samples, chunk_size=chunk_size, seed=seed)
    kind = ATTACKS[attack]
    settings = {
        "model": model,
        **circumstances(target.network, target.images),
        "levels": levels(target.images),
        "attack": attack,
        "eps": eps,
        "norm": kind.norm or norm,
        "steps": steps if kind.steps else None,
        "attack_samples": attack_samples if kind.draws else 1,
        "max_queries": max_queries if kind.asks else None,
        "sees": sees if kind.asks else None,
        "sources": source or [],
        "source_weights": [digest(network.state_dict()) for network in sources],
        "noise": noise,
        "sigma": sigma,
        "sigma_units": sigma_units,
        "vote": vote,
        "num_samples": num_samples,
        "precision": target.precision,
        "seed": seed,
    }
    records = Records(keep, {"protocol": "attack", **settings}, option="keep")
    with progress_bar() as bar:
        task = bar.add_task("attacking")
        made = attack_images(
            smoothed,
            target.images,
            settled,
            seed=seed,
            precision=target.precision,
            records=records,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    clean, attacked = (float(votes.shares.mean()) for votes in (made.clean, made.attacked))
    record = {
        **settings,
        "clean": clean,
        "robust": attacked,
        "command": shlex.join(["smoothed", *sys.argv[1:]]),
    }
    errors.print(f"images written to {save_adversarial(out, made, record)}")
    defence = f"{vote} vote of {num_samples} draws, sigma {sigma:g} {sigma_units}"
    output.print(f"{defence}: {clean:.1%} right on clean images, {attacked:.1%} on adversarial ones")
    if json is not None:
        errors.print(f"record written to {write_json(record, json)}")
