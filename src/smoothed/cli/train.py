"""`smoothed train`: train a recipe, or continue a run that was stopped."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smoothed.cli.console import command_line, errors, is_main_process, note, output, progress_bar
from smoothed.cli.options import RUN_FOLDER_HELP
from smoothed.cli.train_options import (
    DEFAULT_RECIPE,
    TrainingAttackOptions,
    TrainingLossOptions,
    TrainingNetworkOptions,
    TrainingOptimiserOptions,
    TrainingRunOptions,
    TrainingSourceOptions,
)
from smoothed.errors import ArgumentError

if TYPE_CHECKING:
    from torch import nn

    from smoothed.training.config import TrainingConfig
    from smoothed.training.loop import Progress, TrainingResult

REDRAWN_EVERY = 0.2
"""Seconds between updates of the progress bar: a GPU has to wait while a loss is read."""


def train(
    out: Annotated[Path, typer.Option(help=RUN_FOLDER_HELP)],
    source: TrainingSourceOptions,
    network: TrainingNetworkOptions,
    attack: TrainingAttackOptions,
    loss: TrainingLossOptions,
    optimiser: TrainingOptimiserOptions,
    run: TrainingRunOptions,
) -> None:
    """Train a robust network and keep the checkpoint with the best robust accuracy on held-out images.

    A recipe sets everything; options override single settings. The held-out images (5,000 of CIFAR's training images)
    decide which checkpoint is kept. OUT receives best.safetensors, last.safetensors, card.json, metrics.jsonl,
    TensorBoard's files and the state to continue from.

    On several GPUs: accelerate launch -m smoothed train --out runs/cni-w

    Examples:
        smoothed train --recipe cni-w --epochs 30 --out runs/cni-w
        smoothed train --from resnet20-cni-w --recipe epgd --out runs/epgd
        smoothed train --architecture mine:net --data mine:data --out runs/own
    """
    from smoothed.api.train import training_result
    from smoothed.checkpoint import CUSTOM
    from smoothed.cli.own import own_attack, own_data
    from smoothed.cli.results import check_files, write_page
    from smoothed.data.adapt import as_training
    from smoothed.training.loop import train as run_training
    from smoothed.utils.distributed import leaving_process_group

    check_files(run.json, report=run.report)
    chosen_attack = None if attack.attack is None else own_attack(attack.attack)
    attack_function = chosen_attack if callable(chosen_attack) else None
    module = _own_network(network, run.seed)
    given = {
        name: value for group in (source, network, attack, loss, optimiser, run) for name, value in vars(group).items()
    }
    if attack_function is not None:
        given["attack"] = CUSTOM
    if module is not None:
        given["architecture"] = CUSTOM
    configuration = _configuration(source, given, module)
    if source.data is None and configuration.data == CUSTOM:
        raise ArgumentError("data", "--data, because the configuration was of a run on data of its own", "none")
    data = own_data(source.data or configuration.data)
    validation = None if source.validation is None else own_data(source.validation, "validation")
    name, train_set, validation_set = as_training(data, validation=validation)
    configuration = replace(configuration, data=name if isinstance(data, str) else CUSTOM)
    with leaving_process_group(), _shown_progress() as show_progress:
        try:
            outcome = run_training(
                configuration,
                train_set,
                validation_set,
                out,
                network=module,
                attack=attack_function,
                time_limit=run.time_limit,
                compiled=run.compiled,
                on_step=show_progress,
                on_note=lambda text: note(f"note: {text}"),
                command=command_line(),
            )
        except KeyboardInterrupt:
            if is_main_process():
                errors.print(f"stopped; the same command continues from the last state saved in {out}")
            raise
    if is_main_process():
        _show_outcome(outcome, out, len(validation_set), configuration.validation_attack_images)
        result = training_result(out, outcome, configuration, train_set)
        if run.json is not None:
            note(f"result written to {result.save(run.json)}")
        write_page(result, run.report)


def _own_network(options: TrainingNetworkOptions, seed: int | None) -> "nn.Module | None":
    """The network of `--architecture package.module:function`; None for a name of this package."""
    import torch

    from smoothed.api.load import load
    from smoothed.cli.parsing import statistics
    from smoothed.utils.checks import check_seed
    from smoothed.utils.imports import is_object_name

    architecture = options.architecture
    if architecture is None or not is_object_name(architecture):
        for name in ("model_args", "weights", "normalize"):
            if getattr(options, name) is not None:
                expected = "--architecture package.module:function beside it"
                raise ArgumentError(name.replace("_", "-"), expected, architecture or "none")
        return None
    with torch.random.fork_rng(devices=[]):
        # The initial weights are a function of the seed.
        torch.default_generator.manual_seed(check_seed(seed or 0))
        try:
            normalize = None if options.normalize is None else statistics(options.normalize)
            return load(architecture, model_args=options.model_args, weights=options.weights, normalize=normalize)
        except ArgumentError as error:
            raise (error.named("architecture") if error.argument == "model" else error) from None


def _configuration(
    source: TrainingSourceOptions, given: dict[str, Any], network: "nn.Module | None"
) -> "TrainingConfig":
    """The recipe's configuration, or that of a card, with the settings that were given in place of its own values."""
    from smoothed.injection import injected_noise
    from smoothed.training.card import read_config
    from smoothed.training.config import TrainingConfig
    from smoothed.training.configured import configured

    if source.config is not None and source.recipe is not None:
        raise ArgumentError("config", "--config without --recipe", f"--recipe {source.recipe}")
    names = [field.name for field in fields(TrainingConfig) if field.name not in ("recipe", "data")]
    settings = {name: given[name] for name in names if given[name] is not None}
    has_noise = network is not None and bool(injected_noise(network).changes)
    base = (source.recipe or DEFAULT_RECIPE) if source.config is None else read_config(source.config)
    return configured(base, settings, has_noise=has_noise)


@contextmanager
def _shown_progress() -> "Iterator[Callable[[Progress], None] | None]":
    """A progress bar that appears with the first step, so that no bar stands before an error about the options."""
    if not is_main_process():
        yield None
        return
    from smoothed.report.format import format_percent

    drawn = 0.0
    bar = progress_bar()
    task = bar.add_task("training", start=False)

    def show_progress(progress: "Progress") -> None:
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
            clean, robust = format_percent(progress.clean_accuracy), format_percent(progress.robust_accuracy)
            text += f"\nvalidation {clean}, PGD-7 {robust}"
        bar.update(task, description=text, completed=progress.step, total=progress.total_steps)

    try:
        yield show_progress
    finally:
        if bar.live.is_started:
            bar.stop()


def _show_outcome(outcome: "TrainingResult", out: Path, images: int, attacked: int) -> None:
    """Print how the run ended; `images` were held out, and PGD attacked the first `attacked` of them."""
    from smoothed.report.format import format_percent

    if outcome.fallback is not None:
        note(f"note: {outcome.fallback}")
    if not outcome.finished:
        output.print(f"stopped at step {outcome.step} of {outcome.total_steps}; the same command continues the run")
    elif outcome.best is not None:
        clean, robust = outcome.best["validation_clean"], outcome.best["validation_robust"]
        accuracies = f"clean {format_percent(clean, 2)}, PGD-7 {format_percent(robust, 2)}"
        counts = f"{images:,} held-out images" + (f", {attacked:,} attacked" if attacked < images else "")
        output.print(f"best on validation: {accuracies} ({counts}) -> {out / 'best.safetensors'}")
