"""`smoothed train`: train a network with noise inside, or go on with a run that was stopped."""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from smoothed.attacks import ATTACKS
from smoothed.cli.console import errors, output, progress_bar
from smoothed.cli.parsing import duration, fraction, names
from smoothed.injection import PRESETS
from smoothed.models import ARCHITECTURES
from smoothed.training.schedules import SCHEDULES


def train(
    out: Annotated[Path, typer.Option(help="Folder of the run. The same command goes on where it stopped.")],
    data: Annotated[str, typer.Option(help="cifar10, cifar100, or the folder of either.")] = "cifar10",
    architecture: Annotated[str, typer.Option(help=f"One of {names(ARCHITECTURES)}.")] = "resnet20",
    injection: Annotated[str, typer.Option(help=f"Noise inside: one of {names(PRESETS)}.")] = "cni-w",
    injection_strength: Annotated[
        float,
        typer.Option(help="Factor on the deviation the learned noise starts with, its own or that of --from."),
    ] = 1.0,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="Fine-tune this checkpoint, a bundled name or a path; one without noise gets INJECTION."
        ),
    ] = None,
    attack: Annotated[str, typer.Option(help=f"What to train against: one of {names(ATTACKS)}.")] = "pgd",
    eps: Annotated[
        float, typer.Option(parser=fraction, metavar="NUMBER", help="L-inf radius of the attack, in pixels of [0, 1].")
    ] = "8/255",  # pyright: ignore[reportArgumentType] - parsed by `fraction`
    steps: Annotated[int, typer.Option(help="Gradient steps of the attack (k).")] = 7,
    attack_samples: Annotated[int, typer.Option(help="Draws for each gradient of epgd and smoothadv (M).")] = 8,
    adversarial_weight: Annotated[
        float, typer.Option(help="Weight w in [0, 1] of the adversarial term; 1 - w is the clean term's (eq. 6).")
    ] = 0.5,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 400,
    batch_size: Annotated[int, typer.Option(help="Images of one step.")] = 256,
    schedule: Annotated[str, typer.Option(help=f"Of the learning rate: one of {names(SCHEDULES)}.")] = "steps",
    lr: Annotated[float, typer.Option(help="Peak learning rate of SGD.")] = 0.1,
    noise_lr: Annotated[float, typer.Option(help="Factor on the learning rate for the noise strengths.")] = 1.0,
    momentum: Annotated[float, typer.Option(help="Nesterov momentum of SGD.")] = 0.9,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty on every parameter.")] = 1e-4,
    average: Annotated[float, typer.Option(help="Decay of the weight average that is kept, 0 for none.")] = 0.0,
    precision: Annotated[str, typer.Option(help="float32 or bf16 (mixed).")] = "float32",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    validation_attack_images: Annotated[
        int, typer.Option(help="Validation images that PGD-7 attacks after each epoch.")
    ] = 1000,
    time_limit: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", help="Save and stop after this long: 90s, 25m, 1.5h."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write here how the run ended and its best numbers.")] = None,
) -> None:
    """Train with adversarial examples and noise inside, and keep the best network on held-out images.

    5,000 training images are held out; all choices are made on them. OUT gets best.safetensors, last.safetensors,
    metrics.jsonl, TensorBoard's files and the state to go on from.
    """
    from smoothed.data.named import load_training
    from smoothed.files import require_writable, write_json
    from smoothed.training.config import TrainingConfig
    from smoothed.training.loop import Progress
    from smoothed.training.loop import train as run

    if json is not None:
        require_writable(json)
    name, train_set, validation_set = load_training(data)
    config = TrainingConfig(
        data=name,
        architecture=architecture,
        injection=injection,
        injection_strength=injection_strength,
        start=start,
        attack=attack,
        eps=eps,
        attack_steps=steps,
        attack_samples=attack_samples,
        adversarial_weight=adversarial_weight,
        epochs=epochs,
        batch_size=batch_size,
        schedule=schedule,
        lr=lr,
        noise_lr=noise_lr,
        momentum=momentum,
        weight_decay=weight_decay,
        average=average,
        precision=precision,
        seed=seed,
        validation_attack_images=validation_attack_images,
    )
    with progress_bar() as bar:
        task = bar.add_task("training", start=False)

        def show(progress: Progress) -> None:
            if not bar.tasks[0].started:  # the time left is told by the steps of this call, not by those before it
                bar.reset(task, completed=progress.step)
            text = f"epoch {progress.epoch + 1}/{progress.epochs}  loss {progress.loss:.3f}"
            if progress.clean is not None and progress.robust is not None:
                text += f"  validation {progress.clean:.1%}, PGD-7 {progress.robust:.1%}"
            bar.update(task, description=text, completed=progress.step, total=progress.total_steps)

        command = shlex.join(["smoothed", *sys.argv[1:]])
        try:
            outcome = run(config, train_set, validation_set, out, time_limit=time_limit, on_step=show, command=command)
        except KeyboardInterrupt:
            errors.print(f"stopped; the same command goes on from the last state saved in {out}")
            raise
    if json is not None:
        write_json(asdict(outcome), json)
    if not outcome.finished:
        output.print(f"stopped at step {outcome.step} of {outcome.total_steps}; the same command goes on")
    elif outcome.best is not None:
        clean, robust = outcome.best["validation_clean"], outcome.best["validation_robust"]
        output.print(f"best on validation: clean {clean:.2%}, PGD-7 {robust:.2%} -> {out / 'best.safetensors'}")
