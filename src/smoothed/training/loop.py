"""The one training loop, for every recipe: batch -> examples -> loss -> step, under Accelerate.

Everything random in a step is a function of (seed, step, image), and everything in an epoch's order of (seed, epoch).
So a run that was killed and resumed ends with the weights of one that was not, on any number of processes, to rounding.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from smoothed.training.card import training_record, write_card
from smoothed.training.config import TrainingConfig
from smoothed.training.interrupt import DeferredInterrupt
from smoothed.training.metrics import Metrics
from smoothed.training.run import Run
from smoothed.training.state import load_state, save_state
from smoothed.training.step import take_step
from smoothed.training.validation import validate
from smoothed.utils.devices import Precision, best_device, resolve_precision

# Processes agree on whether to stop, and look whether losses are numbers, this often: both make a GPU wait.
AGREE_EVERY = 20


@dataclass(frozen=True)
class Progress:
    """Where a run is: shown while it goes on. `loss` makes a GPU wait, so ask for it when you show it."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    clean: float | None
    robust: float | None
    latest: Tensor

    @property
    def loss(self) -> float:
        """The last step's loss on this process."""
        return float(self.latest)


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended: `finished`, or stopped by its time limit with the state saved.

    Attributes:
        finished: whether the run is over.
        step: steps done.
        total_steps: steps of the whole run.
        best: the numbers of the epoch with the best robust validation accuracy.
        seconds: of the run, over all calls.
        fallback: what could not be made fast, and why.
    """

    finished: bool
    step: int
    total_steps: int
    best: dict[str, float] | None
    seconds: float
    fallback: str | None


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
    command: str | None = None,
) -> Outcome:
    """Train, or go on where the run in `folder` stopped, as one process or as one of several that Accelerate started.

    After each epoch the validation set is measured: clean, and its first images under PGD-7. `folder` gets
    `best.safetensors` (the best robust accuracy there), `last.safetensors`, where the configuration keeps extremes
    `converged.safetensors` and `diverged.safetensors` (the best and the worst clean accuracy), `card.json`,
    `metrics.jsonl`, TensorBoard's files, and the state under `state/`.

    Args:
        config: what to train and how.
        train_set: the training part; moved to the device if it is one that lies in memory.
        validation_set: what choices are made on; never the test set.
        folder: of the run; all processes must see it.
        network: your own, from images in [0, 1] to logits, with the configuration's architecture `custom`; changed in
            place. Its noise is the configuration's.
        attack: your own, in place of the configuration's; runs in eval mode or not as it likes.
        time_limit: seconds after which the state is saved and the call returns.
        save_every: seconds between saved states; one is saved after each epoch, at the end and at Ctrl-C anyway.
        compiled: whether torch.compile makes the network that attacks see.
        on_step: called after each step.
        command: what the user typed, for the card.

    Returns:
        How it ended.

    Raises:
        ArgumentError: a batch too small for so many processes, or a network without the architecture `custom`.
        CheckpointError: the folder holds another configuration's run.
        DivergedError: a loss was no number; the last state saved is from before.
        OutputError: something could not be written; the last state saved is intact.
        KeyboardInterrupt: after Ctrl-C, once the step has ended and the state is saved.
    """
    begun = time.monotonic()
    _require_folder(folder)
    accelerator = accelerator_for(config, folder)
    run = Run(config, train_set, accelerator, network=network, attack=attack)
    session = Session(run, validation_set.to(accelerator.device), folder, command, begun)
    total = run.plan.steps
    last_save = time.monotonic()
    with _tracking(accelerator), DeferredInterrupt() as interrupt:
        for batch in run.plan.batches(train_set.to(accelerator.device), run.share, run.step):
            if compiled and run.step == session.first_step:
                run.compile_for(to_float(batch.images).contiguous(memory_format=torch.channels_last))
            run.losses.append(take_step(run, batch))
            run.step += 1
            if on_step is not None:
                on_step(session.progress(batch.epoch))
            agrees = batch.ends_epoch or accelerator.num_processes == 1 or run.step % AGREE_EVERY == 0
            out_of_time = time_limit is not None and session.elapsed() > time_limit
            stops = agrees and _any(accelerator, out_of_time or interrupt.requested)
            due = agrees and _any(accelerator, time.monotonic() - last_save > save_every)
            if batch.ends_epoch or stops or due or run.step % AGREE_EVERY == 0:
                session.require_numbers()
            if batch.ends_epoch:
                session.end_epoch(batch.epoch + 1)
            if batch.ends_epoch or stops or due:
                session.store()
                last_save = time.monotonic()
            if stops:
                break
    if interrupt.requested:
        raise KeyboardInterrupt
    return Outcome(run.step >= total, run.step, total, run.kept.get("best"), run.seconds, run.fallback)


class Session:
    """One call of `train`: a run, where it is written, and the clock."""

    def __init__(self, run: Run, validation_set: Images, folder: Path, command: str | None, begun: float) -> None:
        self.begun = begun
        self.run, self.validation_set, self.folder, self.command = run, validation_set, folder, command
        saved = load_state(folder / "state")
        if saved is not None:
            run.restore(*saved)
        self.seconds_before, self.first_step = run.seconds, run.step
        self.metrics = Metrics(folder, run.accelerator, run.step)
        self.numbers = (self.metrics.read() or [{}])[-1]

    def elapsed(self) -> float:
        """Seconds of this call."""
        return time.monotonic() - self.begun

    def progress(self, epoch: int) -> Progress:
        """Where the run is."""
        clean, robust = self.numbers.get("validation_clean"), self.numbers.get("validation_robust")
        run = self.run
        return Progress(run.step, run.plan.steps, epoch, run.config.epochs, clean, robust, run.losses[-1])

    def losses(self) -> list[float]:
        """The losses of this epoch's steps, the mean over all processes."""
        if not self.run.losses:
            return []
        own = torch.stack(self.run.losses)
        return self.run.accelerator.reduce(own, "mean").tolist()  # pyright: ignore[reportAttributeAccessIssue]

    def require_numbers(self) -> None:
        """Raise `DivergedError` where a loss, or what would be saved, is no number: the last good state stays."""
        run = self.run
        losses = torch.tensor(self.losses())
        wrong = (~losses.isfinite()).nonzero()
        if len(wrong):
            step = run.step - len(losses) + int(wrong[0]) + 1
            raise self._diverged(f"the loss of step {step} of {run.plan.steps} is {float(losses[wrong[0]])}")
        tensors = {f"{name} ({group})": t for group, named in run.groups().items() for name, t in named.items()}
        finite = torch.stack([tensor.isfinite().all().to(run.accelerator.device) for tensor in tensors.values()])
        if _any(run.accelerator, not finite.all()):
            broken = [name for name, good in zip(tensors, finite.tolist(), strict=True) if not good]
            which = broken[0] if broken else "something on another process"
            raise self._diverged(f"after step {run.step} of {run.plan.steps}, {which} is not finite")

    def _diverged(self, what: str) -> DivergedError:
        last, change = self.folder / "last.safetensors", "a lower --lr, or with --precision float32"
        advice = f"start in a new folder with {change}"
        if last.is_file():
            advice = f"the last epoch's network is in {last}: go on from it (--from) in a new folder with {change}"
        return DivergedError(f"training diverged: {what}; {advice}")

    def end_epoch(self, epoch: int) -> None:
        """Measure the validation set, keep the networks worth keeping, log the numbers and write the card."""
        run = self.run
        run.seconds = self.seconds_before + self.elapsed()
        losses = self.losses()
        clean, robust = validate(run, self.validation_set)
        numbers = {"epoch": epoch, "validation_clean": clean, "validation_robust": robust}
        self.numbers = numbers
        for name in self._worth_keeping(clean, robust):
            run.kept[name] = numbers
            self._keep(name, numbers)
        self._keep("last", numbers)
        self.metrics.log(run.step, **numbers, loss=sum(losses) / len(losses), seconds=run.seconds)
        if run.accelerator.is_main_process:
            write_card(run, self.folder, self.metrics.read(), self.command)
        run.losses = []

    def store(self) -> None:
        """Save the state, from the main process; the others wait, so that none runs ahead of what is saved."""
        run = self.run
        run.seconds = self.seconds_before + self.elapsed()
        losses = self.losses()
        if run.accelerator.is_main_process:
            save_state(self.folder / "state", run.step, run.groups(), run.meta(losses))
        run.accelerator.wait_for_everyone()

    def _worth_keeping(self, clean: float, robust: float) -> list[str]:
        better = {
            "best": lambda old: robust > old["validation_robust"],
            "converged": lambda old: clean > old["validation_clean"],
            "diverged": lambda old: clean < old["validation_clean"],
        }
        names = better if self.run.config.keep == "extremes" else ("best",)
        return [name for name in names if name not in self.run.kept or better[name](self.run.kept[name])]

    def _keep(self, name: str, numbers: dict[str, float]) -> None:
        run = self.run
        if not run.accelerator.is_main_process:
            return
        training = {**training_record(run, self.command), "validation": numbers}
        header = describe(run.config.architecture, run.result, run.injection, run.classes, training=training)
        save(self.folder / f"{name}.safetensors", run.result, header)


def _any(accelerator: Accelerator, flag: bool) -> bool:
    """Whether `flag` is set on any process."""
    if accelerator.num_processes == 1:
        return flag
    flags = torch.tensor(float(flag), device=accelerator.device)
    return bool(accelerator.reduce(flags, "sum") > 0)  # pyright: ignore[reportOperatorIssue]


def accelerator_for(config: TrainingConfig, folder: Path) -> Accelerator:
    """The Accelerator of a run of `config` in `folder`: its precision, its parts, and the processes there are."""
    device = best_device()
    resolved: Precision = resolve_precision(config.precision, device)
    precision = {"float32": "no", "bf16": "bf16"}[resolved]
    shared = AcceleratorState._shared_state  # pyright: ignore[reportPrivateUsage]
    if shared and AcceleratorState().mixed_precision != precision:
        # Accelerate keeps one configuration a process, and would refuse a second run with another precision.
        AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage]
    # Each process has its own batch statistics, unless they are synchronised: buffers are not sent around.
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(
        cpu=device.type == "cpu",  # or several processes on CPUs would not find each other
        mixed_precision=precision,
        gradient_accumulation_steps=config.accumulation,
        log_with="tensorboard",
        project_dir=folder,
        kwargs_handlers=[parallel],
    )


@contextmanager
def _tracking(accelerator: Accelerator) -> Iterator[None]:
    """TensorBoard's writer, closed whatever happens; the processes stay together, for a next run."""
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
        raise OutputError(f"{folder}: could not be made ({error.strerror or error})") from error
