"""`smoothed attack`: adversarial examples of a checkpoint, in a file with the record of how they were made."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from smoothed.attacks import EVALUATION_ATTACKS
from smoothed.cli import options
from smoothed.cli.console import errors, output, progress_bar
from smoothed.cli.options import DEFAULT_MODEL, run_option, settled_noise, vote_option
from smoothed.cli.parsing import names
from smoothed.smoothing.votes import VOTES


def attack(
    examples: Annotated[Path, typer.Option(help="File to write the adversarial examples to (safetensors).")],
    model: options.Model = DEFAULT_MODEL,
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
    sigma: options.Sigma = None,
    sigma_normalized: options.SigmaNormalized = None,
    vote: Annotated[
        str, vote_option(help=f"Vote used to report accuracy on the attacked images: {names(VOTES)}.")
    ] = "prediction",
    num_samples: options.NumSamples = 64,
    seed: options.Seed = 0,
    precision: options.Precision = "float32",
    chunk_size: options.ChunkSize = 250,
    out: options.Out = None,
    json: Annotated[Path | None, run_option(help="File to write the record to as well, as JSON.")] = None,
) -> None:
    """Attack a checkpoint and write the adversarial examples to a file.

    The file holds `images` (float32 in [0, 1], not rounded to 8 bits), `labels`, and `index` (the number of each image
    in its data set). Its header holds all settings and the vote's accuracy on clean and on attacked images.
    `smoothed evaluate --examples FILE` evaluates the examples with fresh votes.

    Example: smoothed attack --attack epgd --examples epgd.safetensors
    """
    from smoothed.attacks import ATTACKS, named_attack
    from smoothed.checkpoint import load
    from smoothed.cli.inputs import CommandInputs
    from smoothed.evaluation.resume import ResumeFolder, fingerprint, fingerprints
    from smoothed.evaluation.saved_examples.attack import attack_dataset, pixel_fingerprint, save_examples
    from smoothed.report.format import format_sigma
    from smoothed.smoothing.config import SmoothingConfig
    from smoothed.utils.checks import check_choice
    from smoothed.utils.files import require_writable, write_json

    check_choice(attack, EVALUATION_ATTACKS, "attack")
    for path in (examples, json):
        if path is not None:
            require_writable(path)
    target = CommandInputs.load(model, data, split, images, precision, chunk_size)
    device = next(target.network.parameters()).device
    sources = tuple(load(name, device=device) for name in source or ())
    settled = named_attack(
        attack,
        eps=eps,
        steps=steps,
        eot_samples=eot_samples,
        norm=norm,
        max_queries=max_queries,
        sees=sees,
        sources=sources,
    )
    config = SmoothingConfig(settled_noise(sigma, sigma_normalized, noise, target.noise), vote, num_samples)
    smoothed = config.smooth(target.network, chunk_size=chunk_size, seed=seed)
    described = config.noise.to_json(target.network)
    kind = ATTACKS[attack]
    settings = {
        "model": model,
        **fingerprints(target.network, target.images),
        "pixel_fingerprint": pixel_fingerprint(target.images),
        "attack": attack,
        "eps": eps,
        "norm": kind.norm or norm,
        "steps": steps if kind.multi_step else None,
        "eot_samples": eot_samples if kind.multi_draw else 1,
        "max_queries": max_queries if kind.uses_queries else None,
        "sees": sees if kind.uses_queries else None,
        "sources": source or [],
        "source_weights": [fingerprint(network.state_dict()) for network in sources],
        **described,
        "vote": vote,
        "num_samples": num_samples,
        "precision": target.precision,
        "seed": seed,
    }
    resume = ResumeFolder(out, {"protocol": "attack", **settings})
    with progress_bar() as bar:
        task = bar.add_task("attacking")
        made = attack_dataset(
            smoothed,
            target.images,
            settled,
            seed=seed,
            precision=target.precision,
            resume=resume,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    clean, attacked = (float(votes.shares.mean()) for votes in (made.clean, made.attacked))
    record = {
        **settings,
        "clean": clean,
        "robust": attacked,
        "command": shlex.join(["smoothed", *sys.argv[1:]]),
    }
    errors.print(f"images written to {save_examples(examples, made, record)}")
    words = format_sigma(described["sigma"], described["sigma_normalized"])
    defence = f"{vote} vote of {num_samples} draws, {words}"
    output.print(f"{defence}: {clean:.1%} accuracy on clean images, {attacked:.1%} on attacked images")
    if json is not None:
        errors.print(f"record written to {write_json(record, json)}")
