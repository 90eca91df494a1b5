"""The one training loop, for every recipe: batch -> attack -> loss -> step, under Accelerate.

Everything random in a step is a function of (seed, step), and everything in an epoch's order of (seed, epoch). So a
run that was killed and resumed ends with the weights of one that was not.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from smoothed.attacks import Attack, named_attack
from smoothed.checkpoint import describe, save
from smoothed.data.augment import augment
from smoothed.data.imageset import ImageSet, to_float
from smoothed.errors import ArgumentError, CheckpointError, OutputError
from smoothed.evaluation.accuracy import one_draw_accuracy
from smoothed.injection import drawing, noise_layers
from smoothed.randomness import Fresh, mix, seeded
from smoothed.training.averaging import average_weights
from smoothed.training.config import TrainingConfig
from smoothed.training.initial import initial_network
from smoothed.training.interrupt import DeferredInterrupt
from smoothed.training.losses import adversarial_loss
from smoothed.training.metrics import Metrics
from smoothed.training.provenance import provenance
from smoothed.training.schedules import SCHEDULES
from smoothed.training.state import load_state, save_state

# Which stream of randomness a key belongs to, so that no two uses ever share one.
ORDER, CROPS, NOISE, VALIDATION = range(1, 5)


@dataclass(frozen=True)
class Progress:
    """Where a run is: shown while it goes on."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    loss: float
    clean: float | None
    robust: float | None


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended: `finished`, or stopped by its time limit with the state saved."""

    finished: bool
    step: int
    total_steps: int
    best: dict[str, Any] | None
    seconds: float


class Run:
    """A run in memory: the network, its optimizer and average, and how far they have come."""

    def __init__(
        self, config: TrainingConfig, classes: tuple[str, ...], accelerator: Accelerator, attack: Attack | None = None
    ) -> None:
        model, self.injection, self.parent = initial_network(config, classes)
        model.to(accelerator.device)
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing from torch's stubs
        self.average = average_weights(model, config.average) if config.average else None
        self.names = [name for name, _ in model.named_parameters()]
        optimizer = torch.optim.SGD(
            _parameter_groups(model, config.noise_lr),
            config.lr,
            config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
        )
        self.network, self.optimizer = accelerator.prepare(model, optimizer)
        # The bare network: attacks differentiate in the inputs, for which no gradient has to be synchronised.
        self.model: nn.Module = model
        self.config, self.classes, self.accelerator = config, classes, accelerator
        self.attack = attack or named_attack(
            config.attack, eps=config.eps, steps=config.attack_steps, num_samples=config.attack_samples
        )
        self.provenance = provenance(accelerator.device)
        self.step, self.seconds, self.best = 0, 0.0, None
        self.losses: list[Tensor] = []

    @property
    def result(self) -> nn.Module:
        """The network to evaluate and keep: the average where there is one."""
        return self.model if self.average is None else self.average.module

    def groups(self) -> dict[str, dict[str, Tensor]]:
        """The state as tensors."""
        momentum = {
            name: self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in zip(self.names, self.model.parameters(), strict=True)
            if self.optimizer.state.get(parameter, {}).get("momentum_buffer") is not None
        }
        average = {} if self.average is None else {"average": dict(self.average.state_dict())}
        return {"weights": dict(self.model.state_dict()), "momentum": momentum, **average}

    def meta(self) -> dict[str, Any]:
        """The state that is no tensor."""
        losses = [float(loss) for loss in self.losses]
        return {"config": self.config.to_json(), "seconds": self.seconds, "best": self.best, "losses": losses}

    def restore(self, groups: dict[str, dict[str, Tensor]], meta: dict[str, Any]) -> None:
        """Take up the state that `groups` and `meta` gave.

        Raises:
            CheckpointError: it is another configuration's.
        """
        changed = {k: v for k, v in self.config.to_json().items() if meta["config"].get(k) != v}
        if changed:
            name = next(iter(changed))
            raise CheckpointError(
                f"out: the run there has {name} = {meta['config'].get(name)!r}, this one {changed[name]!r}; "
                "give the same options to go on, or another folder to start anew"
            )
        self.model.load_state_dict(groups["weights"])
        if self.average is not None:
            self.average.load_state_dict(groups["average"])
        parameters = dict(zip(self.names, self.model.parameters(), strict=True))
        for name, buffer in groups["momentum"].items():
            target = parameters[name]
            self.optimizer.state[target]["momentum_buffer"] = torch.empty_like(target).copy_(buffer)
        self.step, self.seconds, self.best = meta["step"], meta["seconds"], meta["best"]
        self.losses = [torch.tensor(loss) for loss in meta["losses"]]


def train(
    config: TrainingConfig,
    train_set: ImageSet,
    validation_set: ImageSet,
    folder: Path,
    *,
    time_limit: float | None = None,
    save_every: float = 60.0,
    attack: Attack | None = None,
    on_step: Callable[[Progress], None] | None = None,
    command: str | None = None,
) -> Outcome:
    """Train, or go on where the run in `folder` stopped.

    After each epoch the validation set is measured: clean, and its first images under PGD-7; the network with the best
    robust accuracy there is kept as `best.safetensors`, the newest as `last.safetensors`. Beside them are
    `metrics.jsonl`, TensorBoard's files, and the state under `state/`.

    Args:
        config: what to train and how.
        train_set: the training part; moved to the device.
        validation_set: what choices are made on; never the test set.
        folder: of the run.
        time_limit: seconds after which the state is saved and the call returns.
        save_every: seconds between saved states; one is saved after each epoch, at the end and at Ctrl-C anyway.
        attack: your own, in place of the configuration's; runs in eval mode or not as it likes.
        on_step: called after each step.
        command: what the user typed, for the card.

    Returns:
        How it ended.

    Raises:
        ArgumentError: started as several processes, which this version does not train with.
        CheckpointError: the folder holds another configuration's run.
        OutputError: something could not be written; the last state saved is intact.
        KeyboardInterrupt: after Ctrl-C, once the step has ended and the state is saved.
    """
    begun = time.monotonic()
    _require_folder(folder)
    accelerator = _accelerator(config, folder)
    run = Run(config, train_set.classes, accelerator, attack)
    saved = load_state(folder / "state")
    if saved is not None:
        run.restore(*saved)
    metrics = Metrics(folder, accelerator, run.step)
    train_set, validation_set = train_set.to(accelerator.device), validation_set.to(accelerator.device)
    steps_per_epoch = max(1, len(train_set) // config.batch_size)
    total = config.epochs * steps_per_epoch
    seconds_before, last_save = run.seconds, time.monotonic()

    def store() -> None:
        run.seconds = seconds_before + time.monotonic() - begun
        if accelerator.is_main_process:
            save_state(folder / "state", run.step, run.groups(), run.meta())

    numbers = (metrics.read() or [{}])[-1]
    with _tracking(accelerator), DeferredInterrupt() as interrupt:
        while run.step < total:
            epoch, place = divmod(run.step, steps_per_epoch)
            run.losses.append(_step(run, train_set, epoch, place, run.step / total))
            run.step += 1
            if on_step is not None:
                clean, robust = numbers.get("validation_clean"), numbers.get("validation_robust")
                on_step(Progress(run.step, total, epoch, config.epochs, float(run.losses[-1]), clean, robust))
            epoch_is_over = place == steps_per_epoch - 1
            if epoch_is_over:
                run.seconds = seconds_before + time.monotonic() - begun
                numbers = _end_epoch(run, validation_set, folder, epoch + 1, command)
                loss = math.fsum(float(loss) for loss in run.losses) / len(run.losses)
                metrics.log(run.step, **numbers, loss=loss, seconds=run.seconds)
                run.losses = []
            out_of_time = time_limit is not None and time.monotonic() - begun > time_limit
            stops = out_of_time or interrupt.requested
            if epoch_is_over or stops or time.monotonic() - last_save > save_every:
                store()
                last_save = time.monotonic()
            if stops:
                break
    if interrupt.requested:
        raise KeyboardInterrupt
    return Outcome(run.step >= total, run.step, total, run.best, run.seconds)


def _end_epoch(run: Run, validation_set: ImageSet, folder: Path, epoch: int, command: str | None) -> dict[str, float]:
    """Measure the validation set, and keep the network if it is the best so far; returns the numbers."""
    clean, robust = _validate(run, validation_set)
    numbers = {"epoch": epoch, "validation_clean": clean, "validation_robust": robust}
    if run.best is None or robust > run.best["validation_robust"]:
        run.best = numbers
        _keep(run, folder / "best.safetensors", numbers, command)
    _keep(run, folder / "last.safetensors", numbers, command)
    return numbers


def _accelerator(config: TrainingConfig, folder: Path) -> Accelerator:
    precision = {"float32": "no", "bf16": "bf16"}[config.precision]
    shared = AcceleratorState._shared_state  # pyright: ignore[reportPrivateUsage]
    if shared and AcceleratorState().mixed_precision != precision:
        # Accelerate keeps one configuration a process, and would refuse a second run with another precision.
        AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage]
    accelerator = Accelerator(mixed_precision=precision, log_with="tensorboard", project_dir=folder)
    if accelerator.num_processes > 1:
        raise ArgumentError("processes", "one process for training", accelerator.num_processes)
    return accelerator


@contextmanager
def _tracking(accelerator: Accelerator) -> Iterator[None]:
    """TensorBoard's writer, closed whatever happens."""
    accelerator.init_trackers("tensorboard")
    try:
        yield
    finally:
        accelerator.end_training()


def _parameter_groups(model: nn.Module, noise_lr: float) -> list[dict[str, Any]]:
    """The weights and the noise strengths, each with the factor on its learning rate."""
    noise = {id(parameter) for layer in noise_layers(model) for parameter in layer.parameters()}
    weights = [parameter for parameter in model.parameters() if id(parameter) not in noise]
    strengths = [parameter for parameter in model.parameters() if id(parameter) in noise]
    groups: list[dict[str, Any]] = [{"params": weights, "lr_factor": 1.0}]
    return [*groups, {"params": strengths, "lr_factor": noise_lr}] if strengths else groups


def _require_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: could not be made ({error.strerror or error})") from error


def _lr(run: Run, progress: float) -> float:
    return run.config.lr * SCHEDULES[run.config.schedule](progress)


def _step(run: Run, data: ImageSet, epoch: int, place: int, progress: float) -> Tensor:
    """One step on one batch; returns its loss, detached."""
    config, accelerator = run.config, run.accelerator
    order = torch.randperm(len(data), generator=seeded(mix(config.seed, ORDER, epoch)))
    index = order[place * config.batch_size : (place + 1) * config.batch_size].to(data.images.device)
    crops = seeded(mix(config.seed, CROPS, run.step))
    labels = data.labels[index]
    clean = to_float(augment(data.images[index], crops)).contiguous(memory_format=torch.channels_last)
    generator = seeded(mix(config.seed, NOISE, run.step), accelerator.device)
    for group in run.optimizer.param_groups:
        group["lr"] = group["lr_factor"] * _lr(run, progress)
    run.network.train()
    with drawing(run.model, Fresh(generator)):
        adversarial = clean
        if config.adversarial_weight > 0:
            with accelerator.autocast():
                adversarial = run.attack(run.model, clean, labels, generator)
        loss = adversarial_loss(run.network, clean, adversarial, labels, config.adversarial_weight)
        accelerator.backward(loss)
    run.optimizer.step()
    run.optimizer.zero_grad()
    if run.average is not None:
        run.average.update_parameters(run.model)
    return loss.detach()


def _validate(run: Run, data: ImageSet) -> tuple[float, float]:
    """Clean accuracy on all of `data`, and accuracy of its first images under PGD-7; both of one draw."""
    config = run.config
    attacked = data.first(min(len(data), config.validation_attack_images))
    with run.accelerator.autocast():
        clean = one_draw_accuracy(run.result, data, seed=mix(config.seed, VALIDATION, 0))
        pgd = named_attack("pgd", eps=config.eps)
        robust = one_draw_accuracy(run.result, attacked, attack=pgd, seed=mix(config.seed, VALIDATION, 1))
    return clean, robust


def _keep(run: Run, path: Path, numbers: dict[str, Any], command: str | None) -> None:
    if not run.accelerator.is_main_process:
        return
    training = {
        "config": run.config.to_json(),
        "command": command,
        "seconds": round(run.seconds, 1),
        "validation": numbers,
        **run.provenance,
        **({"from": run.parent} if run.parent else {}),
    }
    header = describe(run.config.architecture, run.result, run.injection, run.classes, training=training)
    save(path, run.result, header)
