"""The steps of a run. Each is a function of a folder, of its own declaration, and of the results that it needs."""

import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from smoothed.api.evaluate import evaluate
from smoothed.api.sweep import sweep
from smoothed.attacks import Attack, named_attack
from smoothed.checkpoint import load, update_header
from smoothed.errors import ArgumentError
from smoothed.evaluation.correctness import OnProgress, attack_noisy_classifier
from smoothed.evaluation.paper_protocol.rows import Row, choose_sigma, smoothing_card
from smoothed.evaluation.provenance import result_provenance
from smoothed.evaluation.results import Result
from smoothed.evaluation.resume import fingerprint
from smoothed.injection import noiseless
from smoothed.paper.appendix_report import appendix_rows
from smoothed.paper.catalog import is_of_a_table, read_off, sweep_counts
from smoothed.paper.declaration import TUNED, Measurement, NetworkSpec, SigmaSweep
from smoothed.paper.folder import FINISHED, RunFolder
from smoothed.paper.images import schedule_images
from smoothed.paper.networks import NETWORKS
from smoothed.paper.plan import PaperStep, tuning_name
from smoothed.paper.schedules import PaperSchedule
from smoothed.rng.rows import Randomness
from smoothed.rng.seeds import seed_from
from smoothed.smoothing.config import NoiseConfig, SmoothingConfig
from smoothed.training.loop import Progress, train
from smoothed.utils.devices import best_device
from smoothed.utils.distributed import SINGLE_PROCESS, Processes
from smoothed.utils.files import write_json
from smoothed.utils.modes import Classifier

PAPER_ATTACKS = ("pgd", "nattack")
"""Attacks of the paper's tables, besides transfer attacks."""

OnStep = Callable[[int, int], None]
"""Called with the finished amount of a step's work and its total."""


class TimeIsUpError(Exception):
    """The time limit has passed; what is finished of the step is stored."""


@dataclass(frozen=True)
class Clock:
    """A time limit.

    Attributes:
        end: value of `time.monotonic()` at which it has passed; None for no limit.
    """

    end: float | None = None

    @classmethod
    def of(cls, seconds: float | None) -> "Clock":
        """A limit of that many seconds from now on."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    def left(self) -> float | None:
        """Seconds that are left, or None without a limit."""
        return None if self.end is None else self.end - time.monotonic()

    def is_up(self) -> bool:
        """Whether no time is left."""
        return self.end is not None and time.monotonic() >= self.end

    def check(self) -> None:
        """Raise `TimeIsUpError` if no time is left."""
        if self.is_up():
            raise TimeIsUpError


@dataclass(frozen=True)
class StepContext:
    """What every step is given.

    Attributes:
        folder: folder of the run.
        clock: time limit.
        on_progress: called with the finished amount of the step's work and its total.
        command: command line, for the provenance of results; None for none.
        processes: processes that share the work of a step.
    """

    folder: RunFolder
    clock: Clock = Clock()
    on_progress: OnStep = lambda _done, _total: None
    command: str | None = None
    processes: Processes = SINGLE_PROCESS

    def batch_progress(self) -> OnProgress:
        """Progress callback of an evaluation, which stops it at a batch's end when the time is up.

        With several processes the time limit is not checked here, because they would stop at different batches.
        """

        def report(done: int, total: int) -> None:
            self.on_progress(done, total)
            if done < total and self.processes.count == 1:
                self.clock.check()

        return report


def is_done(step: PaperStep, folder: RunFolder) -> bool:
    """Whether the outcome of a step is stored.

    Raises:
        ArgumentError: it is stored, but for other settings or for other weights.
    """
    if step.kind == "train":
        assert step.network is not None  # noqa: S101
        names = [name for name, other in NETWORKS.items() if other.run_name == step.network.run_name]
        return folder.is_trained(step.network) or all(folder.find_network(name) is not None for name in names)
    path = folder.result(step.name)
    if not path.is_file():
        return False
    if step.kind != "appendix":
        _require_same(step, folder, Result.load(path))
    return True


def perform(step: PaperStep, context: StepContext) -> None:
    """Run a step whose prerequisites are done, or continue it after an interruption.

    Raises:
        TimeIsUpError: the time limit has passed; the same call goes on later.
        SmoothedError: the step fails.
    """
    is_first = context.processes.rank == 0
    if step.kind == "train":
        assert step.network is not None  # noqa: S101
        _train(step.network, context)
    elif step.kind == "appendix":
        if is_first:
            _compute_appendix(step.name, context)
    else:
        result = _PERFORM[step.kind](step, context)
        if is_first:
            summary = {**result.summary, "paper": step_settings(step, context.folder)}
            replace(result, summary=summary).save(context.folder.result(step.name))
            shutil.rmtree(context.folder.batches(step.name), ignore_errors=True)
    context.processes.gather(None)  # nobody goes on before the files are there


def step_settings(step: PaperStep, folder: RunFolder) -> dict[str, Any]:
    """What the result of a step depends on besides weights and images, as JSON values."""
    schedule, source = folder.schedule, step.source
    common: dict[str, Any] = {"schedule": schedule.name}
    if step.kind == "tune":
        return {
            **common,
            "images": schedule.tuning_images,
            "sigmas": list(schedule.tuning_sigmas),
            "num_samples": schedule.samples(schedule.tuning_samples),
        }
    if isinstance(source, SigmaSweep):
        return {
            **common,
            "images": schedule.figure_images,
            "runs": schedule.figure_runs,
            "sigmas": list(schedule.figure_sigmas),
            "votes": list(source.votes),
            "num_samples": list(sweep_counts(source, schedule)),
            "steps": schedule.steps(source.steps),
        }
    assert source is not None  # noqa: S101
    wanted = read_off(source, schedule)
    images, runs = measurement_size(source, schedule)
    return {
        **common,
        "images": images,
        "runs": runs,
        "votes": list(wanted.votes),
        "num_samples": list(wanted.num_samples),
        "steps": schedule.steps(source.steps),
        "eot_samples": source.eot_samples,
        "max_queries": schedule.max_queries if source.attack == "nattack" else None,
    }


def _require_same(step: PaperStep, folder: RunFolder, result: Result) -> None:
    path = folder.result(step.name)
    hint = "move the file away to measure again, or use another --out"
    stored, expected = result.summary.get("paper", {}), step_settings(step, folder)
    for name, value in expected.items():
        if stored.get(name) != value:
            raise ArgumentError("out", f"{step.name} with {name} = {value}", f"{stored.get(name)} in {path}", hint)
    name = _first_network(step)
    network = folder.find_network(name)
    # The numbers as loaded: files of the zoo hold some of them in half precision.
    if network is not None and result.model.get("weights") != fingerprint(load(network).state_dict()):
        raise ArgumentError("out", f"{step.name} measured on {network}", f"other weights in {path}", hint)


def _first_network(step: PaperStep) -> str:
    if step.source is not None:
        return step.source.network
    assert step.network is not None  # noqa: S101
    return step.network.name


def _train(network: NetworkSpec, context: StepContext) -> None:
    folder = context.folder
    parent = network.parent_in(folder.schedule.name)
    config = folder.config(network, None if parent is None else folder.network(parent))
    out = folder.training(network)

    def report(progress: Progress) -> None:
        context.on_progress(progress.step, progress.total_steps)

    outcome = train(
        config,
        schedule_images(folder.schedule, network.data, "train"),
        schedule_images(folder.schedule, network.data, "validation"),
        out,
        time_limit=context.clock.left(),
        on_step=report,
        command=context.command,
    )
    if not outcome.finished:
        raise TimeIsUpError
    finished = {"config": config.to_json(), "steps": outcome.step, "seconds": outcome.seconds, "best": outcome.best}
    if context.processes.rank == 0:
        write_json(finished, out / FINISHED)


def _tune(step: PaperStep, context: StepContext) -> Result:
    """Choose sigma by the vote's robust accuracy on held-out images, and write it to the checkpoint's header."""
    folder, network = context.folder, step.network
    assert network is not None  # noqa: S101
    schedule, path = folder.schedule, folder.network(network.name)
    result = sweep(
        _load(folder, network.name),
        schedule_images(schedule, network.data, "validation").first(schedule.tuning_images),
        sigmas_normalized=schedule.tuning_sigmas,
        steps=schedule.steps(network.steps),
        votes=("prediction",),
        num_samples=(schedule.samples(schedule.tuning_samples),),
        name=network.name,
        precision=schedule.precision,
        keep_images=0,
        out=folder.batches(step.name),
        processes=context.processes,
        on_batch=context.batch_progress(),
        command=context.command,
    )
    rows = [Row.from_json(row) for row in result.rows]
    chosen = choose_sigma(rows)
    if path.is_relative_to(folder.path) and context.processes.rank == 0:  # files of a zoo are not written to
        update_header(path, smoothing=smoothing_card(chosen, rows, result.data["name"]))
    return replace(result, summary={**result.summary, "chosen": chosen.to_json()})


def tuned_sigma(folder: RunFolder, network: str) -> float:
    """The sigma that was chosen on held-out images, in the paper's unit.

    Raises:
        ArgumentError: it has not been chosen yet.
    """
    result = folder.load_result(tuning_name(network))
    if result is None:
        raise ArgumentError("sigma", f"the result {tuning_name(network)}", "none", "tune the network first")
    chosen = result.summary["chosen"]["sigma_normalized"]
    # The sweep states it as a mean over channels, with rounding errors.
    return min(folder.schedule.tuning_sigmas, key=lambda sigma: abs(sigma - chosen))


def _sweep(step: PaperStep, context: StepContext) -> Result:
    folder, source = context.folder, step.source
    assert isinstance(source, SigmaSweep)  # noqa: S101
    schedule = folder.schedule
    return sweep(
        _load(folder, source.network),
        schedule_images(schedule, NETWORKS[source.network].data, "test").first(schedule.figure_images),
        sigmas_normalized=schedule.figure_sigmas,
        steps=schedule.steps(source.steps),
        votes=source.votes,
        num_samples=sweep_counts(source, schedule),
        name=source.network,
        runs=schedule.figure_runs,
        precision=schedule.precision,
        keep_images=0,
        out=folder.batches(step.name),
        processes=context.processes,
        on_batch=context.batch_progress(),
        command=context.command,
    )


def _evaluate(step: PaperStep, context: StepContext) -> Result:
    folder, source = context.folder, step.source
    assert isinstance(source, Measurement)  # noqa: S101
    schedule, wanted = folder.schedule, read_off(source, folder.schedule)
    network = _load(folder, source.network)
    count, runs = measurement_size(source, schedule)
    options: dict[str, Any] = {"attack": source.attack, "max_queries": schedule.max_queries * source.eot_samples}
    if source.source is not None:
        other = _load(folder, source.source)
        options = {"attack": _transfer(source, folder, other), "sources": {source.source: other}}
    classifier: Any = network
    if source.sigma is not None:
        sigma = tuned_sigma(folder, source.network) if source.sigma == TUNED else float(source.sigma)
        smoothing = SmoothingConfig(NoiseConfig(sigma_normalized=sigma), num_samples=max(wanted.num_samples))
        classifier = smoothing.smooth(network)
        options |= {"votes": wanted.votes, "num_samples": wanted.num_samples, "base": False}
    with noiseless(network) if source.mean else nullcontext():
        result = evaluate(
            classifier,
            schedule_images(schedule, NETWORKS[source.network].data, "test").first(count),
            **options,
            eps=source.radius / 255,
            steps=schedule.steps(source.steps),
            eot_samples=source.eot_samples,
            name=source.network,
            runs=runs,
            precision=schedule.precision,
            keep_images=0,
            out=folder.batches(step.name),
            processes=context.processes,
            on_batch=context.batch_progress(),
            command=context.command,
        )
    kept = {name: tensor for name, tensor in result.tensors.items() if name.endswith(".right")}
    return replace(result, tensors=kept)


def measurement_size(source: Measurement, schedule: PaperSchedule) -> tuple[int | None, int]:
    """Number of test images, None for all, and number of runs of an evaluation."""
    if source.attack == "nattack":
        return schedule.query_images, schedule.query_runs
    if is_of_a_table(source, schedule):
        own = source.attack in PAPER_ATTACKS or source.source is not None
        return schedule.table_images, schedule.table_runs if own else schedule.extra_runs
    return schedule.figure_images, schedule.figure_runs


def _transfer(source: Measurement, folder: RunFolder, other: nn.Module) -> Attack:
    """The attack on another network, with its noise, whose examples are used against the evaluated one."""
    sigma = source.source_sigma
    noise = None if sigma is None else NoiseConfig(sigma_normalized=sigma).for_model(other)
    attack = named_attack(
        source.attack,
        eps=source.radius / 255,
        steps=folder.schedule.steps(source.steps),
        eot_samples=source.eot_samples,
    )

    def transfer(model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
        del model
        assert isinstance(generator, torch.Generator)  # noqa: S101 - that of the evaluation
        return attack_noisy_classifier(other, noise, attack, inputs, labels, seed=seed_from(generator))

    return transfer


def _compute_appendix(name: str, context: StepContext) -> None:
    start = time.monotonic()
    rows = appendix_rows()
    provenance = result_provenance(best_device(), context.command or "smoothed.paper", 0, time.monotonic() - start)
    write_json({"schema": "smoothed-appendix", **rows, "provenance": provenance}, context.folder.result(name))
    context.on_progress(1, 1)


def _load(folder: RunFolder, name: str) -> nn.Module:
    return load(folder.network(name), device=best_device())


_PERFORM: dict[str, Callable[[PaperStep, StepContext], Result]] = {
    "tune": _tune,
    "sweep": _sweep,
    "evaluate": _evaluate,
}
