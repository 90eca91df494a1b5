"""`smoothed train`: train a recipe, or continue a run that was stopped."""

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
from smoothed.cli.console import errors, is_main_process, output, progress_bar
from smoothed.cli.parsing import duration, fraction, names
from smoothed.injection import PRESETS
from smoothed.models import ARCHITECTURES
from smoothed.training.examples import EXAMPLES
from smoothed.training.losses import LOSSES
from smoothed.training.schedules import SCHEDULES

if TYPE_CHECKING:
    from smoothed.training.config import TrainingConfig
    from smoothed.training.loop import Progress, TrainingResult

DEFAULT_RECIPE = "cni-w"
# Seconds between updates of the progress bar: reading a loss makes a GPU wait.
REDRAWN_EVERY = 0.2


def _option(panel: str, help_text: str, *names_of_option: str, **more: Any) -> Any:  # noqa: ANN401 - typer's own type
    """An option in a panel. It overrides the recipe's setting; the recipe's stays where the option is not given."""
    return typer.Option(*names_of_option, help=help_text, rich_help_panel=panel, **more)


NETWORK, ATTACK, LOSS, OPTIMISER, RUN = "Network and noise", "Attack", "Loss", "Optimiser", "Running and output"


def train(
    out: Annotated[Path, typer.Option(help="Folder of the run. The same command continues a run that was stopped.")],
    recipe: Annotated[
        str | None,
        typer.Option(help="Named training configuration (see `smoothed recipes`).", show_default=DEFAULT_RECIPE),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Configuration of an earlier run instead of a recipe: its card.json, or a checkpoint of it."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Training data: cifar10, cifar100, the folder of either, imagefolder:PATH, or imagefolder:PATH@SIZE."
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="Checkpoint to fine-tune, a bundled name or a path. Missing noise layers are added to it."
        ),
    ] = None,
    architecture: Annotated[str | None, _option(NETWORK, f"Architecture: {names(ARCHITECTURES)}.")] = None,
    injection: Annotated[str | None, _option(NETWORK, f"Noise inside the network: {names(PRESETS)}.")] = None,
    injection_strength: Annotated[
        float | None,
        _option(
            NETWORK, "Factor on the initial standard deviation of the noise inside the network, or on that of --from."
        ),
    ] = None,
    input_sigma: Annotated[
        float | None,
        _option(NETWORK, "Standard deviation of Gaussian noise on the training inputs, in pixel units of [0, 1]."),
    ] = None,
    input_sigma_normalized: Annotated[
        float | None,
        _option(NETWORK, "Instead of --input-sigma: relative to the data set's standard deviation (the paper's unit)."),
    ] = None,
    input_draws: Annotated[
        str | None,
        _option(
            NETWORK,
            "fresh: new input noise at each forward pass; fixed: --eot-samples draws a step for attack and loss.",
        ),
    ] = None,
    attack: Annotated[
        str | None,
        _option(ATTACK, f"Attack that makes the training examples: {names((*TRAINING_ATTACKS, *EXAMPLES))}."),
    ] = None,
    norm: Annotated[str | None, _option(ATTACK, "Norm of the radius: linf or l2.")] = None,
    eps: Annotated[
        float | None,
        _option(ATTACK, "Radius in pixel units of [0, 1], such as 8/255.", parser=fraction, metavar="NUMBER"),
    ] = None,
    eps_warmup: Annotated[
        float | None, _option(ATTACK, "Share of the run, in [0, 1], over which eps grows from 0.")
    ] = None,
    attack_steps: Annotated[
        int | None, _option(ATTACK, "Gradient steps of the attack (the paper's k).", "--steps")
    ] = None,
    relative_step_size: Annotated[
        float | None, _option(ATTACK, "Length of each gradient step, as a share of eps.")
    ] = None,
    steps_warmup: Annotated[
        float | None, _option(ATTACK, "Share of the run, in [0, 1], over which the number of steps grows from 1.")
    ] = None,
    eot_samples: Annotated[
        int | None, _option(ATTACK, "Draws averaged for each gradient of epgd, epgd-loss and smoothadv.")
    ] = None,
    loss: Annotated[str | None, _option(LOSS, f"Loss: {names(LOSSES)}.")] = None,
    adversarial_weight: Annotated[
        float | None,
        _option(LOSS, "Weight of the adversarial term in [0, 1]: w of eq. 6 (adversarial), q of eq. 23 (bernoulli)."),
    ] = None,
    beta: Annotated[
        float | None, _option(LOSS, "Weight of the divergence term: 1 / lambda of TRADES, lambda of MART.")
    ] = None,
    label_smoothing: Annotated[
        float | None, _option(LOSS, "Share of the target, in [0, 1], that is spread over all classes.")
    ] = None,
    loss_samples: Annotated[int | None, _option(LOSS, "Draws over which each loss is averaged.")] = None,
    weight_perturbation: Annotated[
        float | None, _option(LOSS, "gamma of adversarial weight perturbation; 0 switches it off.")
    ] = None,
    replays: Annotated[int | None, _option(LOSS, "Steps on each batch (m of free adversarial training).")] = None,
    epochs: Annotated[int | None, _option(OPTIMISER, "Passes over the training images.")] = None,
    batch_size: Annotated[int | None, _option(OPTIMISER, "Images of one step, summed over all processes.")] = None,
    accumulation: Annotated[
        int | None,
        _option(
            OPTIMISER, "Parts into which each process cuts its share of a batch, one after the other, to save memory."
        ),
    ] = None,
    schedule: Annotated[str | None, _option(OPTIMISER, f"Learning-rate schedule: {names(SCHEDULES)}.")] = None,
    lr: Annotated[float | None, _option(OPTIMISER, "Peak learning rate of SGD.")] = None,
    noise_lr: Annotated[
        float | None, _option(OPTIMISER, "Factor on the learning rate for the learned strengths of the noise.")
    ] = None,
    momentum: Annotated[float | None, _option(OPTIMISER, "Nesterov momentum of SGD.")] = None,
    weight_decay: Annotated[float | None, _option(OPTIMISER, "L2 penalty on every parameter.")] = None,
    average: Annotated[
        float | None,
        _option(OPTIMISER, "Decay of the exponential weight average that is evaluated and kept; 0 switches it off."),
    ] = None,
    precision: Annotated[
        str | None,
        _option(RUN, "Precision: float32, bf16 (mixed), or auto (bf16 where the hardware has units for it)."),
    ] = None,
    keep: Annotated[
        str | None,
        _option(
            RUN, "Checkpoints to keep: best (robust accuracy), or extremes (the best and worst clean accuracy, too)."
        ),
    ] = None,
    seed: Annotated[int | None, _option(RUN, "Seed of all random numbers.")] = None,
    validation_attack_images: Annotated[
        int | None, _option(RUN, "Validation images that PGD-7 attacks after each epoch.")
    ] = None,
    compiled: Annotated[bool, _option(RUN, "Compile the attacked network with torch.compile.", "--compile")] = False,
    time_limit: Annotated[
        float | None,
        _option(RUN, "Save the state and stop after this time: 90s, 25m, 1.5h.", parser=duration, metavar="TIME"),
    ] = None,
    json: Annotated[
        Path | None, _option(RUN, "File to write the outcome of the run and its best accuracies to, as JSON.")
    ] = None,
) -> None:
    """Train a robust network and keep the checkpoint with the best robust accuracy on held-out images.

    A recipe sets everything; options override single settings. The held-out images (5,000 of CIFAR's training images)
    decide which checkpoint is kept. OUT receives best.safetensors, last.safetensors, card.json, metrics.jsonl,
    TensorBoard's files and the state to continue from.

    On several GPUs: accelerate launch -m smoothed train --out runs/cni-w

    Example: smoothed train --recipe cni-w --epochs 30 --out runs/cni-w
    """
    given = dict(locals())
    from smoothed.data.named import load_training
    from smoothed.training.config import TrainingConfig
    from smoothed.training.loop import train as run
    from smoothed.utils.distributed import leaving_process_group
    from smoothed.utils.files import require_writable, write_json

    if json is not None:
        require_writable(json)
    options = [field.name for field in fields(TrainingConfig) if field.name not in ("recipe", "data")]
    if input_sigma is not None and input_sigma_normalized is None:
        given["input_sigma_normalized"] = 0.0  # in place of a recipe's own noise in the other unit
    elif input_sigma_normalized is not None and input_sigma is None:
        given["input_sigma"] = 0.0
    whole = _settled(recipe, config, {name: given[name] for name in options if given[name] is not None})
    name, train_set, validation_set = load_training(data or whole.data)
    whole = replace(whole, data=name)
    with leaving_process_group(), _shown() as show:
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
            if is_main_process():
                errors.print(f"stopped; the same command continues from the last state saved in {out}")
            raise
    if is_main_process():
        _tell(outcome, out)
        if json is not None:
            write_json(asdict(outcome), json)


def _settled(recipe: str | None, card: Path | None, settings: dict[str, Any]) -> "TrainingConfig":
    """The recipe's configuration, or that of a card, with `settings` in place of its own values."""
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
    """A progress bar that starts with the first step, so that a run with wrong options shows none."""
    if not is_main_process():
        yield None
        return
    drawn = 0.0
    bar = progress_bar()
    task = bar.add_task("training", start=False)

    def show(progress: "Progress") -> None:
        nonlocal drawn
        now = time.monotonic()
        if not bar.tasks[0].started:  # the time left is estimated from the steps of this call alone
            bar.start()
            bar.reset(task, completed=progress.step)
        if now - drawn < REDRAWN_EVERY and progress.step < progress.total_steps:
            return
        drawn = now
        text = f"epoch {progress.epoch + 1}/{progress.epochs}  loss {progress.loss:.3f}"
        if progress.clean_accuracy is not None and progress.robust_accuracy is not None:
            text += f"  validation {progress.clean_accuracy:.1%}, PGD-7 {progress.robust_accuracy:.1%}"
        bar.update(task, description=text, completed=progress.step, total=progress.total_steps)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


def _tell(outcome: "TrainingResult", out: Path) -> None:
    if outcome.fallback is not None:
        errors.print(f"note: {outcome.fallback}")
    if not outcome.finished:
        output.print(f"stopped at step {outcome.step} of {outcome.total_steps}; the same command continues the run")
    elif outcome.best is not None:
        clean, robust = outcome.best["validation_clean"], outcome.best["validation_robust"]
        output.print(f"best on validation: clean {clean:.2%}, PGD-7 {robust:.2%} -> {out / 'best.safetensors'}")
