"""`smoothed train`: train a recipe, or continue a run that was stopped."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from smoothed.attacks import TRAINING_ATTACKS
from smoothed.checkpoint import CUSTOM
from smoothed.cli.console import command_line, errors, is_main_process, note, output, progress_bar
from smoothed.cli.parsing import duration, fraction, names
from smoothed.injection import PRESETS
from smoothed.models import ARCHITECTURES
from smoothed.report.format import format_percent
from smoothed.training.config import AUGMENTATIONS
from smoothed.training.examples import EXAMPLES
from smoothed.training.losses import LOSSES
from smoothed.training.schedules import SCHEDULES

if TYPE_CHECKING:
    from torch import nn

    from smoothed.attacks import Attack
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
        typer.Option(
            help="Named training configuration (see `smoothed recipes`), or package.module:name of a TrainingConfig, a "
            "Recipe, or a function that returns one.",
            show_default=DEFAULT_RECIPE,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Configuration of an earlier run instead of a recipe: its card.json, or a checkpoint of it."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Training data: cifar10, cifar100, the folder of either, a folder with one folder of images per class "
            "(also imagefolder:PATH; imagefolder:PATH@SIZE resizes them), or package.module:function that returns data."
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            help="Held-out data that decide which checkpoint is kept, as in --data.",
            show_default="the validation split, or a tenth of the training data",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Checkpoint to fine-tune, a bundled name or a path. Missing noise layers are added to it. Its last "
            "layer is replaced if the data has another number of classes.",
        ),
    ] = None,
    new_head: Annotated[
        bool | None, _option(NETWORK, "Replace the last linear layer of --from in any case.", "--new-head")
    ] = None,
    augmentation: Annotated[
        str | None,
        _option(
            NETWORK,
            f"Random changes of the training images: {names(AUGMENTATIONS)}. crop-flip shifts them by up to 4 pixels "
            "and mirrors half of them.",
        ),
    ] = None,
    architecture: Annotated[
        str | None,
        _option(
            NETWORK,
            f"Architecture: {names(ARCHITECTURES)}, or package.module:function that returns a network of your own.",
        ),
    ] = None,
    model_args: Annotated[
        str | None,
        _option(NETWORK, "Arguments of the function of --architecture, as a JSON object.", metavar="JSON"),
    ] = None,
    weights: Annotated[
        Path | None,
        _option(
            NETWORK,
            "File of weights for the network of your own that --architecture names: safetensors, or a torch file of a "
            "state dict.",
        ),
    ] = None,
    normalize: Annotated[
        str | None,
        _option(
            NETWORK,
            "Mean and deviation of each channel, in pixel units of [0, 1], for a network of your own that expects "
            "normalised images, such as 0.49,0.46,0.41/0.23,0.22,0.23.",
            metavar="MEAN/STD",
        ),
    ] = None,
    injection: Annotated[
        str | None,
        _option(
            NETWORK,
            f"Noise inside the network: {names(PRESETS)}. With --from, keep keeps the noise that is there, and none "
            "removes it. At the published strength, the accuracy of a network that was trained without noise falls to "
            "chance until it is fine-tuned.",
        ),
    ] = None,
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
        _option(
            ATTACK,
            f"Attack that makes the training examples: {names((*TRAINING_ATTACKS, *EXAMPLES))}, or "
            "package.module:function of (model, inputs, labels, generator).",
        ),
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
    nfgsm_warmup: Annotated[
        float | None,
        _option(ATTACK, "N-FGSM replaces the attack for this first share of the run, in [0, 1]."),
    ] = None,
    eot_samples: Annotated[
        int | None, _option(ATTACK, "Draws averaged for each gradient of epgd, epgd-loss and smoothadv.")
    ] = None,
    copies: Annotated[
        int | None, _option(ATTACK, "Random copies of an image, of which maxup and maxup-crop take the worst.")
    ] = None,
    copy_sigma: Annotated[
        float | None,
        _option(
            ATTACK,
            "Standard deviation of the Gaussian noise of copies (noisy, maxup), in pixel units, such as 25/255.",
            parser=fraction,
            metavar="NUMBER",
        ),
    ] = None,
    loss: Annotated[str | None, _option(LOSS, f"Loss: {names(LOSSES)}.")] = None,
    adversarial_weight: Annotated[
        float | None,
        _option(LOSS, "Weight of the adversarial term in [0, 1]: w of eq. 6 (adversarial), q of eq. 23 (bernoulli)."),
    ] = None,
    beta: Annotated[
        float | None,
        _option(
            LOSS,
            "Weight of the second term: 1 / lambda of TRADES, lambda of MART, of stability training and of FGSM-PGI, "
            "the weight of departures from linearity of CSAT.",
        ),
    ] = None,
    lipschitz_weight: Annotated[float | None, _option(LOSS, "Weight of the local Lipschitz term of csat.")] = None,
    auxiliary_norms: Annotated[
        bool | None,
        _option(
            LOSS,
            "Use separate batch norms for adversarial images in training (AdvProp); evaluation uses the norms of the "
            "clean images.",
            "--auxiliary-norms/--shared-norms",
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None, _option(LOSS, "Share of the target, in [0, 1], that is spread over all classes.")
    ] = None,
    loss_samples: Annotated[int | None, _option(LOSS, "Draws over which each loss is averaged.")] = None,
    kl_weight: Annotated[
        float | None, _option(LOSS, "Weight of the divergence term of variational dropout and Adv-BNN; 1 is published.")
    ] = None,
    weight_perturbation: Annotated[
        float | None, _option(LOSS, "gamma of adversarial weight perturbation; 0 switches it off.")
    ] = None,
    hidden_noise: Annotated[
        float | None,
        _option(LOSS, "Factor on adversarial noise in the first layers (ANP): 1 as published, 0 switches it off."),
    ] = None,
    hidden_steps: Annotated[
        int | None, _option(LOSS, "Passes on each batch while there is noise in the first layers (K of ANP).")
    ] = None,
    hidden_layers: Annotated[
        int | None, _option(LOSS, "Number of first layers whose outputs have the noise of --hidden-noise.")
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
    weight_decay: Annotated[
        float | None, _option(OPTIMISER, "L2 penalty on all parameters except noise strengths with a divergence term.")
    ] = None,
    average: Annotated[
        float | None,
        _option(OPTIMISER, "Decay of the exponential weight average that is evaluated and kept; 0 switches it off."),
    ] = None,
    precision: Annotated[
        str | None,
        _option(RUN, "Precision: float32, bf16 (mixed), or auto (bf16 where the hardware supports it)."),
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
    report: Annotated[
        Path | None, _option(RUN, "File for a page of the run that opens in a browser: .html, with its curves.")
    ] = None,
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
    given = dict(locals())
    from smoothed.api.train import training_result
    from smoothed.data.adapt import as_training
    from smoothed.report.html.page import check_report_name
    from smoothed.training.loop import train as run
    from smoothed.utils.distributed import leaving_process_group
    from smoothed.utils.files import require_writable

    for path in (json, report):
        if path is not None:
            require_writable(path)
    if report is not None:
        check_report_name(report)
    own_attack, own_network = _own_attack(given), _own_network(given)
    whole = _settled(recipe, config, given, own_network)
    named, taken = _taken_data(data, whole)
    name, train_set, validation_set = as_training(taken, validation=_taken(validation, "validation"))
    whole = replace(whole, data=name if named else CUSTOM)
    with leaving_process_group(), _shown() as show:
        try:
            outcome = run(
                whole,
                train_set,
                validation_set,
                out,
                network=own_network,
                attack=own_attack,
                time_limit=time_limit,
                compiled=compiled,
                on_step=show,
                on_note=lambda text: note(f"note: {text}"),
                command=command_line(),
            )
        except KeyboardInterrupt:
            if is_main_process():
                errors.print(f"stopped; the same command continues from the last state saved in {out}")
            raise
    if is_main_process():
        _tell(outcome, out, len(validation_set), whole.validation_attack_images)
        result = training_result(out, outcome, whole, train_set)
        if json is not None:
            errors.print(f"result written to {result.save(json)}")
        if report is not None:
            errors.print(f"report written to {result.report(report)}")


def _own_attack(given: dict[str, Any]) -> "Attack | None":
    """The attack that `--attack package.module:function` names; `given` then says that it is the user's own."""
    from smoothed.cli.own import own_attack
    from smoothed.utils.imports import is_object_name

    name = given["attack"]
    if name is None or not is_object_name(name):
        return None
    given["attack"] = CUSTOM
    return cast("Attack", own_attack(name))


def _own_network(given: dict[str, Any]) -> "nn.Module | None":
    """The network of `--architecture package.module:function`; `given` then says that it is the user's own."""
    import torch

    from smoothed.api.load import load
    from smoothed.cli.parsing import statistics
    from smoothed.errors import ArgumentError
    from smoothed.utils.checks import check_seed
    from smoothed.utils.imports import is_object_name

    name, arguments = given["architecture"], given["model_args"]
    if name is None or not is_object_name(name):
        for option in ("model_args", "weights", "normalize"):
            if given[option] is not None:
                expected = "--architecture package.module:function beside it"
                raise ArgumentError(option.replace("_", "-"), expected, name or "none")
        return None
    given["architecture"] = CUSTOM
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(
            check_seed(given["seed"] or 0)
        )  # the initial weights are a function of the seed
        try:
            normalize = None if given["normalize"] is None else statistics(given["normalize"])
            return load(name, model_args=arguments, weights=given["weights"], normalize=normalize)
        except ArgumentError as error:
            raise (error.named("architecture") if error.argument == "model" else error) from None


def _taken(data: str | None, argument: str) -> object:
    """What `as_training` takes: a name, or what the function of the user's own returns."""
    from smoothed.errors import ArgumentError
    from smoothed.utils.imports import import_object, is_object_name, summary

    if data is None or not is_object_name(data):
        return data
    found = import_object(data, argument)
    try:
        # A Dataset or another object with items is data already, even if it can be called.
        taken = found() if callable(found) and not hasattr(found, "__getitem__") else found
    except Exception as error:  # the user's code may raise any error
        expected = "a function without arguments that returns data"
        raise ArgumentError(argument, expected, f"{data}, which raises {summary(error)}") from error
    if taken is None:
        raise ArgumentError(argument, "a function without arguments that returns data", f"{data}, which returns None")
    return taken


def _taken_data(data: str | None, whole: "TrainingConfig") -> tuple[bool, object]:
    """Whether `--data`, or the data of the configuration, has a name of this package, and what `as_training` takes."""
    from smoothed.errors import ArgumentError

    if data is None and whole.data == CUSTOM:
        raise ArgumentError("data", "--data, because the configuration was of a run on data of its own", "none")
    taken = _taken(data or whole.data, "data")
    return isinstance(taken, str), taken


def _settled(
    recipe: str | None, card: Path | None, given: dict[str, Any], network: "nn.Module | None"
) -> "TrainingConfig":
    """The recipe's configuration, or that of a card, with the options that were given in place of its own values."""
    from smoothed.errors import ArgumentError
    from smoothed.injection import injected_noise
    from smoothed.training.card import read_config
    from smoothed.training.config import TrainingConfig
    from smoothed.training.configured import configured

    options = [field.name for field in fields(TrainingConfig) if field.name not in ("recipe", "data")]
    settings = {name: given[name] for name in options if given[name] is not None}
    if card is not None and recipe is not None:
        raise ArgumentError("config", "--config without --recipe", f"--recipe {recipe}")
    has_noise = network is not None and bool(injected_noise(network).changes)
    base = (recipe or DEFAULT_RECIPE) if card is None else read_config(card)
    return configured(base, settings, has_noise=has_noise)


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
            clean, robust = format_percent(progress.clean_accuracy), format_percent(progress.robust_accuracy)
            text += f"\nvalidation {clean}, PGD-7 {robust}"
        bar.update(task, description=text, completed=progress.step, total=progress.total_steps)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


def _tell(outcome: "TrainingResult", out: Path, images: int, attacked: int) -> None:
    """Print how the run ended; `images` were held out, and PGD attacked the first `attacked` of them."""
    if outcome.fallback is not None:
        note(f"note: {outcome.fallback}")
    if not outcome.finished:
        output.print(f"stopped at step {outcome.step} of {outcome.total_steps}; the same command continues the run")
    elif outcome.best is not None:
        clean, robust = outcome.best["validation_clean"], outcome.best["validation_robust"]
        accuracies = f"clean {format_percent(clean, 2)}, PGD-7 {format_percent(robust, 2)}"
        counts = f"{images:,} held-out images" + (f", {attacked:,} attacked" if attacked < images else "")
        output.print(f"best on validation: {accuracies} ({counts}) -> {out / 'best.safetensors'}")
