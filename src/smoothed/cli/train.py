"""`smoothed train`: train any recipe, or go on with a run that was stopped."""

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smoothed.attacks import TRAINING_ATTACKS
from smoothed.cli.console import errors, output, progress_bar, speaks
from smoothed.cli.parsing import duration, fraction, names
from smoothed.injection import PRESETS
from smoothed.models import ARCHITECTURES
from smoothed.training.examples import EXAMPLES
from smoothed.training.losses import LOSSES
from smoothed.training.schedules import SCHEDULES

if TYPE_CHECKING:
    from smoothed.training.config import TrainingConfig
    from smoothed.training.loop import Outcome, Progress

DEFAULT_RECIPE = "cni-w"
REDRAWN_EVERY = 0.2


def train(
    out: Annotated[Path, typer.Option(help="Folder of the run. The same command goes on where it stopped.")],
    recipe: Annotated[
        str | None,
        typer.Option(help=f"{DEFAULT_RECIPE} if not given; `smoothed recipes` lists them all."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Repeat a run: its card.json, or a checkpoint of it, in place of a recipe.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="cifar10, cifar100, the folder of either, or imagefolder:PATH[@SIZE].")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Fine-tune this checkpoint, a bundled name or a path; noise it lacks is put in."),
    ] = None,
    architecture: Annotated[str | None, typer.Option(help=f"One of {names(ARCHITECTURES)}.")] = None,
    injection: Annotated[str | None, typer.Option(help=f"Noise inside: one of {names(PRESETS)}.")] = None,
    injection_strength: Annotated[
        float | None,
        typer.Option(help="Factor on the deviation the noise inside starts with, its own or that of --from."),
    ] = None,
    input_sigma: Annotated[
        float | None, typer.Option(help="Deviation of Gaussian noise on the input while training.")
    ] = None,
    input_sigma_units: Annotated[
        str | None, typer.Option(help="normalized (the paper's, after division by the data's deviation) or pixel.")
    ] = None,
    input_draws: Annotated[
        str | None, typer.Option(help="fresh at each pass, or fixed: ATTACK_SAMPLES draws that attack and loss share.")
    ] = None,
    attack: Annotated[
        str | None, typer.Option(help=f"What to train against: one of {names((*TRAINING_ATTACKS, *EXAMPLES))}.")
    ] = None,
    norm: Annotated[str | None, typer.Option(help="Of the attack's ball: linf or l2.")] = None,
    eps: Annotated[
        float | None, typer.Option(parser=fraction, metavar="NUMBER", help="Its radius, in pixels of [0, 1]: 8/255.")
    ] = None,
    eps_warmup: Annotated[float | None, typer.Option(help="Share of the run over which eps grows from 0.")] = None,
    attack_steps: Annotated[int | None, typer.Option("--steps", help="Gradient steps of the attack (k).")] = None,
    attack_step: Annotated[float | None, typer.Option(help="Length of each step, as a share of eps.")] = None,
    steps_warmup: Annotated[
        float | None, typer.Option(help="Share of the run over which the steps grow from 1.")
    ] = None,
    attack_samples: Annotated[
        int | None, typer.Option(help="Draws for each gradient of epgd, epgd-loss and smoothadv (M).")
    ] = None,
    loss: Annotated[str | None, typer.Option(help=f"One of {names(LOSSES)}.")] = None,
    adversarial_weight: Annotated[
        float | None, typer.Option(help="w of eq. 6 (adversarial), q of eq. 23 (bernoulli), in [0, 1].")
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Weight of the divergence: 1 / lambda in TRADES, lambda in MART.")
    ] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(help="Share of the target that is spread over all classes, in [0, 1].")
    ] = None,
    loss_samples: Annotated[int | None, typer.Option(help="Draws of each loss, whose mean is descended.")] = None,
    weight_perturbation: Annotated[
        float | None, typer.Option(help="gamma of adversarial weight perturbation, 0 for none.")
    ] = None,
    replays: Annotated[int | None, typer.Option(help="Steps on each batch (m of free adversarial training).")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images of one step, over all processes.")] = None,
    accumulation: Annotated[
        int | None, typer.Option(help="Parts of its share of a batch that a process takes one by one, to save memory.")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help=f"Of the learning rate: one of {names(SCHEDULES)}.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate of SGD.")] = None,
    noise_lr: Annotated[float | None, typer.Option(help="Factor on the learning rate for the noise strengths.")] = None,
    momentum: Annotated[float | None, typer.Option(help="Nesterov momentum of SGD.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="L2 penalty on every parameter.")] = None,
    average: Annotated[float | None, typer.Option(help="Decay of the weight average that is kept, 0 for none.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto (bf16 where the hardware has units for it), float32 or bf16 (mixed).")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="best (robust), or extremes: also the best and the worst clean accuracy.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    validation_attack_images: Annotated[
        int | None, typer.Option(help="Validation images that PGD-7 attacks after each epoch.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Let torch.compile make the network that attacks see.")
    ] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", help="Save and stop after this long: 90s, 25m, 1.5h."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write here how the run ended and its best numbers.")] = None,
) -> None:
    """Train a robust network and keep the best one on held-out images.

    A recipe gives every setting; options change single ones. Held-out images (5,000 of CIFAR's training images) decide
    what is kept. OUT gets best.safetensors, last.safetensors, card.json, metrics.jsonl, TensorBoard's files and the
    state to go on from, on as many processes as you like: accelerate launch -m smoothed train ...
    """
    given = dict(locals())
    from smoothed.data.named import load_training
    from smoothed.training.config import TrainingConfig
    from smoothed.training.loop import train as run
    from smoothed.utils.distributed import parting
    from smoothed.utils.files import require_writable, write_json

    if json is not None:
        require_writable(json)
    options = [field.name for field in fields(TrainingConfig) if field.name not in ("recipe", "data")]
    whole = _settled(recipe, config, {name: given[name] for name in options if given[name] is not None})
    name, train_set, validation_set = load_training(data or whole.data)
    whole = replace(whole, data=name)
    with parting(), _shown() as show:
        try:
            outcome = run(
                whole,
                train_set,
                validation_set,
                out,
                time_limit=time_limit,
                compiled=compiled,
                on_step=show,
                command=shlex.join(["smoothed", *sys.argv[1:]]),
            )
        except KeyboardInterrupt:
            if speaks():
                errors.print(f"stopped; the same command goes on from the last state saved in {out}")
            raise
    if speaks():
        _tell(outcome, out)
        if json is not None:
            write_json(asdict(outcome), json)


def _settled(recipe: str | None, card: Path | None, settings: dict[str, Any]) -> "TrainingConfig":
    """The recipe, or the configuration on a card, with `settings` in place of its own."""
    from smoothed.errors import ArgumentError
    from smoothed.training.card import read_config
    from smoothed.training.recipes import RECIPES
    from smoothed.utils.checks import check_choice

    if card is None:
        name = recipe or DEFAULT_RECIPE
        check_choice(name, RECIPES, "recipe")
        return RECIPES[name].config(**settings)
    if recipe is not None:
        raise ArgumentError("config", "--config without --recipe", f"--recipe {recipe}")
    return replace(read_config(card), **settings)


@contextmanager
def _shown() -> "Iterator[Callable[[Progress], None] | None]":
    """A bar that follows the run, from its first step on: what is refused before shows none."""
    if not speaks():
        yield None
        return
    drawn = 0.0
    bar = progress_bar()
    task = bar.add_task("training", start=False)

    def show(progress: "Progress") -> None:
        nonlocal drawn
        now = time.monotonic()
        if not bar.tasks[0].started:  # the time left is told by the steps of this call, not by those before it
            bar.start()
            bar.reset(task, completed=progress.step)
        if now - drawn < REDRAWN_EVERY and progress.step < progress.total_steps:  # reading a loss costs time
            return
        drawn = now
        text = f"epoch {progress.epoch + 1}/{progress.epochs}  loss {progress.loss:.3f}"
        if progress.clean is not None and progress.robust is not None:
            text += f"  validation {progress.clean:.1%}, PGD-7 {progress.robust:.1%}"
        bar.update(task, description=text, completed=progress.step, total=progress.total_steps)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


def _tell(outcome: "Outcome", out: Path) -> None:
    if outcome.fallback is not None:
        errors.print(f"note: {outcome.fallback}")
    if not outcome.finished:
        output.print(f"stopped at step {outcome.step} of {outcome.total_steps}; the same command goes on")
    elif outcome.best is not None:
        clean, robust = outcome.best["validation_clean"], outcome.best["validation_robust"]
        output.print(f"best on validation: clean {clean:.2%}, PGD-7 {robust:.2%} -> {out / 'best.safetensors'}")
