"""`smoothed check`: whether the gradients of a checkpoint can be trusted to find its errors."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from smoothed.cli.console import errors, output, progress_bar
from smoothed.cli.parsing import fraction, names
from smoothed.smoothing.input_noise import NOISES
from smoothed.smoothing.votes import VOTES

# For each gradient step, so that one number says how hard all attacks try.
QUERIES, TRIES = 10, 5


def check(
    model: Annotated[str, typer.Option(help="Name of a bundled checkpoint, or path of one.")] = "resnet20-cni-w",
    data: Annotated[
        str, typer.Option(help="sample (1,000 bundled test images), cifar10, cifar100, or the folder of either.")
    ] = "sample",
    split: Annotated[str, typer.Option(help="test, validation (held out of training) or train.")] = "test",
    images: Annotated[int, typer.Option(help="Use the first N images; from 100 on, a pass is in reach.")] = 128,
    eps: Annotated[
        float, typer.Option(parser=fraction, metavar="NUMBER", help="L-inf radius of the attacks, in pixels of [0, 1].")
    ] = "8/255",  # pyright: ignore[reportArgumentType] - parsed by `fraction`
    steps: Annotated[
        int, typer.Option(help="Gradient steps of PGD (k); queries and random tries grow with them.")
    ] = 10,
    attack_samples: Annotated[
        int, typer.Option(help="Draws for each gradient of the white-box attack that others are held against (M).")
    ] = 4,
    noise: Annotated[str, typer.Option(help=f"Law of the input noise: one of {names(NOISES)}.")] = "gaussian",
    sigma: Annotated[
        float | None, typer.Option(help="Deviation of the input noise. The checkpoint's own if not given.")
    ] = None,
    sigma_units: Annotated[
        str | None,
        typer.Option(help="normalized (the paper's and the default: after division by the data's deviation) or pixel."),
    ] = None,
    vote: Annotated[str, typer.Option(help=f"One of {names(VOTES)}.")] = "prediction",
    num_samples: Annotated[int, typer.Option(help="Draws of an image (M).")] = 8,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    chunk_size: Annotated[int, typer.Option(help="Images of one forward pass of the vote; bounds memory.")] = 250,
    out: Annotated[
        Path | None, typer.Option(help="Keep what is done in this folder; after a kill the same command goes on.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the findings here.")] = None,
) -> None:
    """Run the obfuscated-gradient checklist: signs that an attack fails for another reason than robustness.

    Each check measures one flaw on the images, with a 95 % interval, and says pass, suspicious or unclear. Accuracies
    are those of the vote on fresh draws. The exit code is 0 whatever the verdict.
    """
    from smoothed.acceleration.fast import Fast
    from smoothed.checkpoint import load, locate, own_sigma
    from smoothed.data.named import load_images
    from smoothed.errors import ArgumentError
    from smoothed.evaluation.gradient_masking import CHECKS, Defence, Settings, run_checks, summary
    from smoothed.evaluation.paper_protocol.evaluate import Protocol
    from smoothed.report.gradient_masking import findings_table
    from smoothed.smoothing.classifier import Smoothed
    from smoothed.utils.devices import best_device
    from smoothed.utils.files import require_writable, write_json

    if sigma is None and sigma_units is not None:
        raise ArgumentError("sigma_units", "--sigma beside it", "none")
    if json is not None:
        require_writable(json)
    settings = Settings(
        eps=eps, steps=steps, attack_samples=attack_samples, queries=QUERIES * steps, tries=TRIES * steps, seed=seed
    )
    device = best_device()
    image_set = load_images(data, split).first(images).to(device)
    network = load(model, device=device)
    own, own_units = own_sigma(locate(model))
    sigma, sigma_units = (own, own_units) if sigma is None else (sigma, sigma_units or "normalized")
    input_noise = Protocol(noise=noise, sigma_units=sigma_units).input_noise(network, sigma)
    smoothed = Smoothed(
        Fast(network), input_noise, vote=vote, num_samples=num_samples, chunk_size=chunk_size, seed=seed
    )
    on_trial = Defence.of(smoothed, image_set, settings, name=model, out=out)
    with progress_bar() as bar:
        task = bar.add_task("checking", total=len(CHECKS))
        findings = run_checks(
            on_trial,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    draws = "one draw" if attack_samples == 1 else f"{attack_samples} draws"
    attack = f"PGD-{steps} over {draws} at eps {eps * 255:g}/255"
    defence = f"{vote} vote of {num_samples} draws, sigma {sigma:g} {sigma_units}"
    output.print(findings_table(findings, f"{model}, {len(image_set)} images, {defence}, {attack}"))
    output.print(summary(findings))
    if json is not None:
        record = {
            "model": model,
            "data": image_set.name,
            "images": len(image_set),
            "vote": vote,
            "num_samples": num_samples,
            "noise": noise,
            "sigma": sigma,
            "sigma_units": sigma_units,
            **asdict(settings),
            "findings": [finding.to_json() for finding in findings],
            "summary": summary(findings),
        }
        errors.print(f"findings written to {write_json(record, json)}")
