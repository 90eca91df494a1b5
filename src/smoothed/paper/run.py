"""Run the steps of declarations in order.

Each finished step is stored, so that the same call continues an interrupted run.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from smoothed.checkpoint import SUFFIX
from smoothed.errors import DivergedError
from smoothed.paper.folder import RunFolder
from smoothed.paper.networks import NETWORKS
from smoothed.paper.plan import PaperStep, make_plan
from smoothed.paper.schedules import PaperSchedule
from smoothed.paper.steps import Clock, StepContext, TimeIsUpError, is_done, perform
from smoothed.utils.distributed import SINGLE_PROCESS, Processes


class RunObserver(Protocol):
    """Callbacks that report the progress of a run."""

    def begin(self, step: PaperStep, number: int, total: int) -> None:
        """Called when step `number` (from 1) of `total` begins, but not for steps that were already done."""
        ...

    def progress(self, done: int, total: int) -> None:
        """The present step has done this much of its work."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know."""
        ...


class SilentObserver:
    """Callbacks that do nothing."""

    def begin(self, step: PaperStep, number: int, total: int) -> None:
        """Do nothing."""

    def progress(self, done: int, total: int) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        done: number of steps whose outcome is stored.
        total: number of steps.
        seconds: duration of this call.
        failed: message of each step that failed, by its name.
        waiting: names of the steps that wait for a failed one.
    """

    done: int
    total: int
    seconds: float
    failed: dict[str, str]
    waiting: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.done == self.total


def run_paper(
    names: Sequence[str],
    schedule: PaperSchedule,
    out: Path | str,
    *,
    zoo: Path | str = "zoo",
    time_limit: float | None = None,
    observer: RunObserver | None = None,
    command: str | None = None,
    processes: Processes = SINGLE_PROCESS,
    wait: float = 5.0,
    training: bool = True,
) -> RunOutcome:
    """Train, tune and evaluate what the named declarations need and what is not done yet.

    Several calls, on one machine or on several with a common file system, may share a folder. Each runs steps that no
    other call is running, and returns when no steps are left.

    Args:
        names: names of tables, figures, the appendix or networks; none for all tables, figures and the appendix.
        schedule: schedule of the run.
        out: folder of the run. Networks go to `networks/NAME`, results to `results/NAME.json`.
        zoo: folder of finished networks `NAME.safetensors`, which are not trained again.
        time_limit: seconds after which the call returns, inside a step or between two; None for no limit. Several
            `processes` stop inside a training or between two steps.
        observer: callbacks for progress; None for none.
        command: command line, for the provenance of results.
        processes: processes that share the work of each step; all of them make the same call.
        wait: seconds between checks of the folder while other calls are running all available steps.
        training: whether to train missing networks; if not, only steps of finished networks are run.

    Returns:
        How many steps are done, and which failed. A training that diverges does not stop the others.

    Raises:
        ArgumentError: a name is unknown, or the folder belongs to another schedule, version or setting.
        SmoothedError: data is missing, a file is damaged or can't be written.
        KeyboardInterrupt: Ctrl-C was pressed; the same call goes on.
    """
    start, clock = time.monotonic(), Clock.of(time_limit)
    observer = SilentObserver() if observer is None or processes.rank > 0 else observer
    plan = make_plan(names, schedule)
    folder = RunFolder(Path(out), schedule, Path(zoo))
    if processes.rank == 0:
        folder.open()
    processes.gather(None)
    for note in _zoo_notes(folder, plan):
        observer.note(note)
    if not training:
        plan = _of_finished_networks(plan, folder)
    context = StepContext(folder, clock, observer.progress, command, processes)
    work = _Work(plan, folder)
    while True:
        found = work.claim() if processes.rank == 0 and not clock.is_up() else None
        number = processes.gather(found)[0]
        if number is None:
            break
        if number == BUSY:
            time.sleep(wait if clock.end is None else max(0.0, min(wait, clock.end - time.monotonic())))
            continue
        step = plan[number]
        observer.begin(step, number + 1, len(plan))
        try:
            perform(step, context)
            work.done.add(step.name)
        except TimeIsUpError:
            break
        except DivergedError as error:
            work.failed[step.name] = str(error)
            observer.note(f"{step.name}: {error}")
        finally:
            work.release()
    work.look()
    return RunOutcome(len(work.done), len(plan), time.monotonic() - start, work.failed, tuple(work.waiting()))


def _of_finished_networks(plan: Sequence[PaperStep], folder: RunFolder) -> list[PaperStep]:
    """The steps of a plan that are done, or that depend only on finished networks."""
    kept: dict[str, PaperStep] = {}
    for step in plan:
        if is_done(step, folder) or (step.kind != "train" and all(need in kept for need in step.needs)):
            kept[step.name] = step
    return list(kept.values())


BUSY = -1
"""Returned in place of a step's number while other calls are running all available steps."""


class _Work:
    """State of a plan within one call.

    A lock file marks each step that is running; the system releases the lock when the process ends.
    """

    def __init__(self, plan: Sequence[PaperStep], folder: RunFolder) -> None:
        self.plan, self.folder = plan, folder
        self.done, self.failed = set[str](), dict[str, str]()
        self.lock: FileLock | None = None

    def waiting(self) -> list[str]:
        """Names of the steps that wait for a failed one."""
        names: list[str] = []
        for step in self.plan:
            if any(need in self.failed or need in names for need in step.needs):
                names.append(step.name)
        return names

    def look(self) -> None:
        """Find out what is done."""
        for step in self.plan:
            if step.name not in self.done and step.name not in self.failed and is_done(step, self.folder):
                self.done.add(step.name)

    def claim(self) -> int | None:
        """Lock the first step that can be done now and return its number; `BUSY` to wait; None if nothing is left."""
        self.look()
        waiting = self.waiting()
        for number, step in enumerate(self.plan):
            if step.name in self.done or step.name in self.failed or step.name in waiting:
                continue
            if all(need in self.done for need in step.needs) and self._lock(step):
                if not is_done(step, self.folder):
                    return number
                self.release()  # another call has just done it
                return BUSY
        left = len(self.plan) - len(self.done) - len(self.failed) - len(waiting)
        return BUSY if left else None

    def release(self) -> None:
        """Give up the lock of the present step."""
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    def _lock(self, step: PaperStep) -> bool:
        path = self.folder.lock(step.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        self.lock = lock
        return True


def _zoo_notes(folder: RunFolder, plan: Sequence[PaperStep]) -> list[str]:
    """Why networks of the zoo are not used, for those that the plan trains."""
    runs = {step.network.run_name for step in plan if step.kind == "train" and step.network is not None}
    names = [name for name, network in NETWORKS.items() if network.run_name in runs]
    found = [name for name in names if (folder.zoo / f"{name}{SUFFIX}").is_file()]
    return [note for name in found if (note := folder.zoo_difference(name)) is not None]
