"""Training loop of all recipes: batch -> examples -> loss -> step, under Accelerate.

The random numbers of a step are a function of (seed, step, image), and the order of an epoch is a function of
(seed, epoch). A resumed run therefore ends with the weights of an uninterrupted one, up to rounding, for any number of
processes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from smoothed.attacks import Attack
from smoothed.checkpoint import describe, save
from smoothed.data.images import Images
from smoothed.data.imageset import to_float
from smoothed.errors import DivergedError, OutputError
from smoothed.rng.seeds import mix
from smoothed.training.card import training_record, write_card
from smoothed.training.config import TrainingConfig
from smoothed.training.initial import initial_network
from smoothed.training.interrupt import DeferredInterrupt
from smoothed.training.metrics import Metrics
from smoothed.training.overfitting import note_of, overfits
from smoothed.training.own_parts import PROBED_IMAGES, check_own_network
from smoothed.training.precision import training_precision
from smoothed.training.run import Run
from smoothed.training.state import load_state, save_state
from smoothed.training.step import take_step
from smoothed.training.streams import TrainingStream
from smoothed.training.validation import validate
from smoothed.utils.devices import Precision, best_device

# Steps between synchronisations, in which processes agree on stopping and check the losses; both make a GPU wait.
SYNCHRONISE_EVERY = 20


@dataclass(frozen=True)
class Progress:
    """Progress of a run, for display.

    Attributes:
        step: number of finished steps.
        total_steps: steps of the whole run.
        epoch: index of the current epoch, from 0.
        epochs: epochs of the whole run.
        clean_accuracy: validation accuracy after the last finished epoch, in [0, 1]; None before the first.
        robust_accuracy: validation accuracy under PGD-7 after the same epoch, in [0, 1] or None.
        latest_loss: loss of the last step on this process, a scalar tensor on the device.
    """

    step: int
    total_steps: int
    epoch: int
    epochs: int
    clean_accuracy: float | None
    robust_accuracy: float | None
    latest_loss: Tensor

    @property
    def loss(self) -> float:
        """Loss of the last step on this process. Reading it makes a GPU wait."""
        return float(self.latest_loss)


@dataclass(frozen=True)
class TrainingResult:
    """Outcome of a call of `train`, which ends with the run or at its time limit.

    Attributes:
        finished: whether the run is complete; if not, its state has been saved.
        step: number of finished steps.
        total_steps: steps of the whole run.
        best: epoch number and accuracies of the epoch with the best robust validation accuracy; None before the first
            epoch ends.
        seconds: duration of the run, summed over all calls.
        fallback: reason why attacks could not use a fused or compiled network; None if they could.
        notes: what differs from the request or from the checkpoint that the network comes from, and catastrophic
            overfitting if an epoch shows it, one sentence each.
    """

    finished: bool
    step: int
    total_steps: int
    best: dict[str, float] | None
    seconds: float
    fallback: str | None
    notes: tuple[str, ...] = ()


def train(
    config: TrainingConfig,
    train_set: Images,
    validation_set: Images,
    folder: Path,
    *,
    network: nn.Module | None = None,
    attack: Attack | None = None,
    time_limit: float | None = None,
    save_every: float = 60.0,
    compiled: bool = False,
    on_step: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    command: str | None = None,
) -> TrainingResult:
    """Train a network, or continue the run in `folder`, in one process or in several that Accelerate started.

    After each epoch, clean accuracy is measured on the validation set, and accuracy under PGD-7 on its first images.
    `folder` receives `best.safetensors` (best robust validation accuracy), `last.safetensors`, `card.json`,
    `metrics.jsonl`, TensorBoard's files, and the state under `state/`; with `config.keep="extremes"` also
    `converged.safetensors` and `diverged.safetensors` (best and worst clean validation accuracy).

    A run on single-step examples also records its accuracy on them, `training_adversarial`, and whether an epoch shows
    catastrophic overfitting (see `overfitting.overfits`), which is reported once. The best network is from before it.

    Args:
        config: settings of the run.
        train_set: training images; a set in memory is moved to the device.
        validation_set: held-out images that decide which checkpoints are kept; never the test set.
        folder: folder of the run, visible to all processes.
        network: network of your own from images in [0, 1] to logits, with `config.architecture="custom"`. It is trained
            in place, with the noise of the configuration.
        attack: attack of your own, in place of the configuration's. It is called with the network in train mode and may
            switch to eval mode. `generator` is passed if the attack takes it. Global generators of torch are seeded
            before each step from the seed, and restored at the end.
        time_limit: seconds after which the state is saved and the call returns; None for no limit.
        save_every: seconds between saved states. States are also saved after each epoch, at the end and at Ctrl-C.
        compiled: whether to compile the attacked network with torch.compile.
        on_step: function called after each step.
        on_note: function called with each of the result's `notes`: before the first step, or when it is noticed.
        command: command line of the run, for the model card.

    Returns:
        Whether the run is complete, its best validation accuracies, and its duration.

    Raises:
        ArgumentError: the batch is too small for the number of processes and parts, or `network` and the architecture
            `custom` are not given together.
        CheckpointError: the folder holds a run of another configuration.
        DivergedError: a loss or a weight is NaN or infinite; the last saved state is from before.
        OutputError: a file could not be written; the last saved state is intact.
        KeyboardInterrupt: Ctrl-C was pressed; the step was finished and the state saved.
    """
    start_time = time.monotonic()
    # Nothing is written before these checks.
    start = initial_network(config, train_set, network)
    probed = train_set.first(min(len(train_set), PROBED_IMAGES))
    if network is not None:
        check_own_network(network, probed.to(_device_of(network)))
    precision, notes = training_precision(config.precision, best_device(), start.model, probed)
    start = replace(start, notes=start.notes + notes)
    _require_folder(folder)
    accelerator = accelerator_for(config, folder, precision)
    run = Run(config, start, len(train_set), accelerator, attack=attack)
    session = TrainingSession(run, validation_set.to(accelerator.device), folder, command, start_time, on_note=on_note)
    total = run.plan.steps
    last_save = time.monotonic()
    if on_note is not None and run.step == 0:
        for note in run.notes:
            on_note(note)
    with _tracking(accelerator), DeferredInterrupt() as interrupt, _restored_generators(accelerator.device):
        for batch in run.plan.batches(train_set.to(accelerator.device), run.share, run.step):
            if compiled and run.step == session.first_step:
                run.compile_for(to_float(batch.images).contiguous(memory_format=torch.channels_last))
            # Dropout and other randomness of the user's own network or attack.
            _seed_generators(
                accelerator.device, mix(config.seed, TrainingStream.OWN, run.step, accelerator.process_index)
            )
            run.losses.append(take_step(run, batch))
            run.step += 1
            if on_step is not None:
                on_step(session.progress(batch.epoch))
            synchronises = batch.ends_epoch or accelerator.num_processes == 1 or run.step % SYNCHRONISE_EVERY == 0
            out_of_time = time_limit is not None and session.elapsed() > time_limit
            stops = synchronises and _any(accelerator, out_of_time or interrupt.requested)
            save_due = synchronises and _any(accelerator, time.monotonic() - last_save > save_every)
            if batch.ends_epoch or stops or save_due or run.step % SYNCHRONISE_EVERY == 0:
                session.check_finite()
            if batch.ends_epoch:
                session.end_epoch(batch.epoch + 1)
            if batch.ends_epoch or stops or save_due:
                session.store()
                last_save = time.monotonic()
            if stops:
                break
    if interrupt.requested:
        raise KeyboardInterrupt
    finished, best = run.step >= total, run.kept.get("best")
    notes = (*run.notes, *session.notes)
    return TrainingResult(finished, run.step, total, best, run.seconds, run.fallback, notes)


class TrainingSession:
    """One call of `train`: the run, its output files, and its duration."""

    def __init__(
        self,
        run: Run,
        validation_set: Images,
        folder: Path,
        command: str | None,
        start_time: float,
        *,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        self.start_time, self.on_note = start_time, on_note
        self.run, self.validation_set, self.folder, self.command = run, validation_set, folder, command
        saved = load_state(folder / "state")
        if saved is not None:
            run.restore(*saved)
        self.seconds_before, self.first_step = run.seconds, run.step
        self.metrics = Metrics(folder, run.accelerator, run.step)
        lines = self.metrics.read()
        self.latest_metrics = (lines or [{}])[-1]
        self.epochs = [line for line in lines if "training_adversarial" in line and line["step"] <= run.step]
        overfitted = [i for i, line in enumerate(self.epochs, start=1) if line["catastrophic_overfitting"]]
        self.notes = tuple(note_of(self.epochs[:number]) for number in overfitted[:1])

    def elapsed(self) -> float:
        """Seconds since the call of `train` started."""
        return time.monotonic() - self.start_time

    def progress(self, epoch: int) -> Progress:
        """Progress of the run, in epoch `epoch` (from 0)."""
        clean, robust = self.latest_metrics.get("validation_clean"), self.latest_metrics.get("validation_robust")
        run = self.run
        return Progress(run.step, run.plan.steps, epoch, run.config.epochs, clean, robust, run.losses[-1])

    def losses(self) -> list[float]:
        """Losses of this epoch's steps, averaged over all processes."""
        return self._over_processes(self.run.losses)

    def _over_processes(self, numbers: list[Tensor]) -> list[float]:
        if not numbers:
            return []
        local = torch.stack(numbers)
        return self.run.accelerator.reduce(local, "mean").tolist()  # pyright: ignore[reportAttributeAccessIssue]

    def check_finite(self) -> None:
        """Raise `DivergedError` if a loss or a tensor of the state is NaN or infinite, before the state is saved."""
        run = self.run
        losses = torch.tensor(self.losses())
        not_finite = (~losses.isfinite()).nonzero()
        if len(not_finite):
            step = run.step - len(losses) + int(not_finite[0]) + 1
            raise self._diverged(f"the loss of step {step} of {run.plan.steps} is {float(losses[not_finite[0]])}")
        tensors = {f"{name} ({group})": t for group, named in run.tensor_groups().items() for name, t in named.items()}
        finite = torch.stack([tensor.isfinite().all().to(run.accelerator.device) for tensor in tensors.values()])
        if _any(run.accelerator, not finite.all()):
            broken = [name for name, is_finite in zip(tensors, finite.tolist(), strict=True) if not is_finite]
            first = broken[0] if broken else "a tensor of another process"
            raise self._diverged(f"after step {run.step} of {run.plan.steps}, {first} is not finite")

    def _diverged(self, symptom: str) -> DivergedError:
        last, change = self.folder / "last.safetensors", "a lower --lr or --precision float32"
        hint = f"start again in a new folder with {change}"
        if last.is_file():
            hint = f"continue from the last epoch (--from {last}) in a new folder with {change}"
        return DivergedError(f"training diverged: {symptom}; {hint}")

    def end_epoch(self, epoch: int) -> None:
        """Validate, save the checkpoints, log the metrics and write the model card; `epoch` counts from 1."""
        run = self.run
        run.seconds = self.seconds_before + self.elapsed()
        losses, accuracies = self.losses(), self._over_processes(run.accuracies)
        clean, robust = validate(run, self.validation_set)
        numbers = {"epoch": epoch, "validation_clean": clean, "validation_robust": robust}
        self.latest_metrics = numbers
        training = self._single_step_metrics(numbers, accuracies)
        for name in self._new_records(clean, robust):
            run.kept[name] = numbers
            self._save_checkpoint(name, numbers)
        self._save_checkpoint("last", numbers)
        self.metrics.log(run.step, **numbers, loss=sum(losses) / len(losses), seconds=run.seconds, **training)
        if run.accelerator.is_main_process:
            write_card(run, self.folder, self.metrics.read(), self.command)
        run.losses, run.accuracies = [], []

    def _single_step_metrics(self, numbers: dict[str, float], accuracies: list[float]) -> dict[str, float]:
        """The further metrics of an epoch of single-step training; catastrophic overfitting is said the first time."""
        if not accuracies:
            return {}
        training = {"training_adversarial": sum(accuracies) / len(accuracies)}
        self.epochs.append({**numbers, **training})
        attacked = min(len(self.validation_set), self.run.config.validation_attack_images)
        training["catastrophic_overfitting"] = float(overfits(self.epochs, attacked))
        if training["catastrophic_overfitting"] and not self.notes:
            self.notes = (note_of(self.epochs),)
            if self.on_note is not None:
                self.on_note(self.notes[0])
        return training

    def store(self) -> None:
        """Save the state in the main process; the others wait, so that no process runs ahead of the saved state."""
        run = self.run
        run.seconds = self.seconds_before + self.elapsed()
        losses, accuracies = self.losses(), self._over_processes(run.accuracies)
        if run.accelerator.is_main_process:
            save_state(self.folder / "state", run.step, run.tensor_groups(), run.meta(losses, accuracies))
        run.accelerator.wait_for_everyone()

    def _new_records(self, clean: float, robust: float) -> list[str]:
        """The names of the checkpoints that an epoch with these accuracies replaces."""
        better = {
            "best": lambda old: robust > old["validation_robust"],
            "converged": lambda old: clean > old["validation_clean"],
            "diverged": lambda old: clean < old["validation_clean"],
        }
        names = better if self.run.config.keep == "extremes" else ("best",)
        return [name for name in names if name not in self.run.kept or better[name](self.run.kept[name])]

    def _save_checkpoint(self, name: str, numbers: dict[str, float]) -> None:
        run = self.run
        if not run.accelerator.is_main_process:
            return
        training = {**training_record(run, self.command), "validation": numbers}
        header = describe(run.config.architecture, run.evaluated_model, run.injection, run.classes, training=training)
        save(self.folder / f"{name}.safetensors", run.evaluated_model, header)


def _restored_generators(device: torch.device) -> AbstractContextManager[None]:
    """Restore torch's global generators, of the CPU and of `device`, after the block."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _seed_generators(device: torch.device, seed: int) -> None:
    """Seed the generators that `_restored_generators` restores; `torch.manual_seed` would seed those of all GPUs."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _any(accelerator: Accelerator, flag: bool) -> bool:
    """Whether `flag` is set on any process."""
    if accelerator.num_processes == 1:
        return flag
    flags = torch.tensor(float(flag), device=accelerator.device)
    return bool(accelerator.reduce(flags, "sum") > 0)  # pyright: ignore[reportOperatorIssue]


def _device_of(network: nn.Module) -> torch.device:
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def accelerator_for(config: TrainingConfig, folder: Path, precision: Precision) -> Accelerator:
    """Create the Accelerator of a run, with `precision`, the accumulation of `config` and all running processes."""
    device = best_device()
    mixed_precision = {"float32": "no", "bf16": "bf16"}[precision]
    shared = AcceleratorState._shared_state  # pyright: ignore[reportPrivateUsage]
    if shared and AcceleratorState().mixed_precision != mixed_precision:
        # Accelerate keeps one configuration per process and would refuse a second run with another precision.
        AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage]
    # Batch statistics are either synchronised by the layers or separate for each process; they are never broadcast.
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(
        cpu=device.type == "cpu",  # without it, several processes on CPUs would not connect
        mixed_precision=mixed_precision,
        gradient_accumulation_steps=config.accumulation,
        log_with="tensorboard",
        project_dir=folder,
        kwargs_handlers=[parallel],
    )


@contextmanager
def _tracking(accelerator: Accelerator) -> Iterator[None]:
    """TensorBoard logging inside the block. The process group stays open for a next run."""
    accelerator.init_trackers("tensorboard")
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


def _require_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: could not be created ({error.strerror or error})") from error
