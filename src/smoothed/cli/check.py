"""`smoothed check`: gradient-masking checks of a smoothed checkpoint."""

from dataclasses import asdict
from typing import Annotated

import typer

from smoothed.cli import options
from smoothed.cli.console import errors, output, progress_bar
from smoothed.cli.options import DEFAULT_MODEL, attack_option, settled_noise

# Black-box queries and random tries for each gradient step, so that one option sets the effort of all attacks.
QUERIES, TRIES = 10, 5


def check(
    model: options.Model = DEFAULT_MODEL,
    data: options.Data = "sample",
    split: options.Split = "test",
    images: Annotated[
        int, typer.Option(help="Number of images to use, from the first on. Verdicts need about 100 or more.")
    ] = 128,
    eps: options.Eps = "8/255",  # pyright: ignore[reportArgumentType] - parsed by `fraction`
    steps: Annotated[
        int, attack_option(help="Gradient steps of PGD. Black-box queries and random tries grow with them.")
    ] = 10,
    eot_samples: Annotated[
        int,
        attack_option(help="Draws averaged for each gradient of the white-box attack, the reference attack."),
    ] = 4,
    noise: options.Noise = "gaussian",
    sigma: options.Sigma = None,
    sigma_normalized: options.SigmaNormalized = None,
    vote: options.Vote = "prediction",
    num_samples: options.NumSamples = 8,
    seed: options.Seed = 0,
    chunk_size: options.ChunkSize = 250,
    out: options.Out = None,
    json: options.Json = None,
) -> None:
    """Check a defence for gradient masking: for reasons other than robustness why an attack fails.

    Each check measures one flaw on the images with a 95 % interval and concludes pass, suspicious or unclear.
    Accuracies are those of the vote on fresh draws. The exit code is 0 whatever the verdict.

    Example: smoothed check --images 200 --json checks.json
    """
    from smoothed.acceleration.fast import Fast
    from smoothed.cli.inputs import CommandInputs
    from smoothed.evaluation.gradient_masking import CHECKS, CheckSettings, Defence, run_checks, summary
    from smoothed.report.format import format_sigma
    from smoothed.report.gradient_masking import gradient_masking_table
    from smoothed.smoothing.config import SmoothingConfig
    from smoothed.utils.files import require_writable, write_json

    if json is not None:
        require_writable(json)
    settings = CheckSettings(
        eps=eps, steps=steps, eot_samples=eot_samples, queries=QUERIES * steps, tries=TRIES * steps, seed=seed
    )
    inputs = CommandInputs.load(model, data, split, images, chunk_size=chunk_size, out=out)
    config = SmoothingConfig(settled_noise(sigma, sigma_normalized, noise, inputs.noise), vote, num_samples)
    smoothed = config.smooth(inputs.network, voter=Fast(inputs.network), chunk_size=chunk_size, seed=seed)
    described = config.noise.to_json(inputs.network)
    defence_under_test = Defence.of(smoothed, inputs.images, settings, name=model, out=out)
    with progress_bar() as bar:
        task = bar.add_task("checking", total=len(CHECKS))
        findings = run_checks(
            defence_under_test,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    draws = "one draw" if eot_samples == 1 else f"{eot_samples} draws"
    attack = f"PGD-{steps} over {draws} at eps {eps * 255:g}/255"
    words = format_sigma(described["sigma"], described["sigma_normalized"])
    defence = f"{vote} vote of {num_samples} draws, {words}"
    output.print(gradient_masking_table(findings, f"{model}, {len(inputs.images)} images, {defence}, {attack}"))
    output.print(summary(findings))
    if json is not None:
        record = {
            "model": model,
            "data": inputs.images.name,
            "images": len(inputs.images),
            "vote": vote,
            "num_samples": num_samples,
            **described,
            **asdict(settings),
            "findings": [finding.to_json() for finding in findings],
            "summary": summary(findings),
        }
        errors.print(f"findings written to {write_json(record, json)}")
