"""Run declarations step after step. Each is stored when it is done, so that the same call goes on afterwards."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from smoothed.checkpoint import SUFFIX
from smoothed.errors import DivergedError
from smoothed.paper.folder import RunFolder
from smoothed.paper.networks import NETWORKS
from smoothed.paper.plan import PaperStep, make_plan
from smoothed.paper.schedules import PaperSchedule
from smoothed.paper.steps import Clock, StepContext, TimeIsUpError, is_done, perform


class RunObserver(Protocol):
    """What a run tells while it works."""

    def begin(self, step: PaperStep, number: int, total: int) -> None:
        """Step `number` (from 1) of `total` begins; steps that were done before are counted but not told."""
        ...

    def progress(self, done: int, total: int) -> None:
        """The present step has done this much of its work."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know."""
        ...


class SilentObserver:
    """An observer that tells nothing."""

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
) -> RunOutcome:
    """Train, tune and evaluate what the named declarations need and what is not done yet.

    Args:
        names: names of tables, figures, the appendix or networks; none for all tables, figures and the appendix.
        schedule: schedule of the run.
        out: folder of the run. Networks go to `networks/NAME`, results to `results/NAME.json`.
        zoo: folder of finished networks `NAME.safetensors`, which are not trained again.
        time_limit: seconds after which the call returns, inside a step or between two; None for no limit.
        observer: what is told about the progress; None for nothing.
        command: command line, for the provenance of results.

    Returns:
        How many steps are done, and which failed. A training that diverges does not stop the others.

    Raises:
        ArgumentError: a name is unknown, or the folder belongs to another schedule, version or setting.
        SmoothedError: data is missing, a file is damaged or can't be written.
        KeyboardInterrupt: Ctrl-C was pressed; the same call goes on.
    """
    start, clock = time.monotonic(), Clock.of(time_limit)
    observer = observer or SilentObserver()
    plan = make_plan(names, schedule)
    folder = RunFolder(Path(out), schedule, Path(zoo))
    folder.open()
    for note in _zoo_notes(folder, plan):
        observer.note(note)
    context = StepContext(folder, clock, observer.progress, command)
    done, failed, waiting = set[str](), dict[str, str](), list[str]()
    for number, step in enumerate(plan, start=1):
        if any(need in failed or need in waiting for need in step.needs):
            waiting.append(step.name)
            continue
        try:
            if not is_done(step, folder):
                clock.check()
                observer.begin(step, number, len(plan))
                perform(step, context)
            done.add(step.name)
        except TimeIsUpError:
            done |= {other.name for other in plan[number:] if is_done(other, folder)}
            break
        except DivergedError as error:
            failed[step.name] = str(error)
            observer.note(f"{step.name}: {error}")
    return RunOutcome(len(done), len(plan), time.monotonic() - start, failed, tuple(waiting))


def _zoo_notes(folder: RunFolder, plan: Sequence[PaperStep]) -> list[str]:
    """Why networks of the zoo are not used, for those that the plan trains."""
    runs = {step.network.run_name for step in plan if step.kind == "train" and step.network is not None}
    names = [name for name, network in NETWORKS.items() if network.run_name in runs]
    found = [name for name in names if (folder.zoo / f"{name}{SUFFIX}").is_file()]
    return [note for name in found if (note := folder.zoo_difference(name)) is not None]
