"""From declarations to steps: what to train, tune and evaluate, each once, after what it needs."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from smoothed.errors import ArgumentError
from smoothed.paper.catalog import DECLARATIONS
from smoothed.paper.declaration import (
    TUNED,
    AnySource,
    AppendixSpec,
    Measurement,
    NetworkSpec,
    SigmaSweep,
    sources_of,
)
from smoothed.paper.networks import NETWORKS
from smoothed.paper.schedules import PaperSchedule

StepKind = Literal["train", "tune", "evaluate", "sweep", "appendix"]


@dataclass(frozen=True)
class PaperStep:
    """A piece of work whose outcome is stored under its name.

    Attributes:
        kind: what is done: `train` a network, `tune` its sigma on held-out images, `evaluate` or `sweep` it on test
            images, or compute the `appendix`.
        name: name of the training run's folder, or of the result.
        needs: names of the steps that come before it.
        source: evaluation or sweep; None for the other kinds.
        network: network that is trained or tuned, or the first network of its run.
    """

    kind: StepKind
    name: str
    needs: tuple[str, ...] = ()
    source: AnySource | None = None
    network: NetworkSpec | None = None


def tuning_name(network: str) -> str:
    """Name of the result of tuning a network."""
    return f"{network}.tuning"


def training_name(network: str) -> str:
    """Name of the step that trains a network."""
    return f"train {NETWORKS[network].run_name}"


def check_names(names: Sequence[str]) -> None:
    """Raise `ArgumentError` with the nearest names unless each is that of a declaration or of a network."""
    known = (*DECLARATIONS, *NETWORKS)
    for name in names:
        if name not in known:
            similar = difflib.get_close_matches(name, known)
            hint = f"did you mean {' or '.join(similar)}?" if similar else "see `smoothed paper list`"
            raise ArgumentError("names", f"names of {', '.join(DECLARATIONS)}, or of networks", repr(name), hint)


def make_plan(names: Sequence[str], schedule: PaperSchedule) -> list[PaperStep]:
    """The steps of the named declarations and networks, each once and after all that it needs.

    Evaluations of networks that the schedule does not train are left out.

    Args:
        names: names of declarations, or of networks to train; none for all declarations.
        schedule: schedule of the run.

    Raises:
        ArgumentError: a name is unknown.
    """
    check_names(names)
    steps: dict[str, PaperStep] = {}
    for name in names or DECLARATIONS:
        if name in NETWORKS:
            _add_training(steps, name, schedule)
            continue
        spec = DECLARATIONS[name]
        if isinstance(spec, AppendixSpec):
            steps.setdefault(spec.name, PaperStep("appendix", spec.name))
        for source in sources_of(spec, schedule.name):
            if all(schedule.trains(NETWORKS[network]) for network in source.networks):
                _add_source(steps, source, schedule)
    return list(steps.values())


def left_out(name: str, schedule: PaperSchedule) -> list[str]:
    """Networks of a declaration that the schedule does not train."""
    sources = sources_of(DECLARATIONS[name], schedule.name)
    networks = dict.fromkeys(network for source in sources for network in source.networks)
    return [network for network in networks if not schedule.trains(NETWORKS[network])]


def _add_source(steps: dict[str, PaperStep], source: AnySource, schedule: PaperSchedule) -> None:
    needs = list(dict.fromkeys(_add_training(steps, network, schedule) for network in source.networks))
    if isinstance(source, SigmaSweep):
        steps.setdefault(source.name, PaperStep("sweep", source.name, tuple(needs), source))
        return
    if isinstance(source, Measurement) and source.sigma == TUNED:
        tuning = tuning_name(source.network)
        network = NETWORKS[source.network]
        steps.setdefault(tuning, PaperStep("tune", tuning, (training_name(source.network),), network=network))
        needs.append(tuning)
    steps.setdefault(source.name, PaperStep("evaluate", source.name, tuple(needs), source))


def _add_training(steps: dict[str, PaperStep], name: str, schedule: PaperSchedule) -> str:
    """Add the training of a network, after that of its parents; return the name of the step."""
    network, step = NETWORKS[name], training_name(name)
    if step not in steps:
        parent = network.parent_in(schedule.name)
        needs = () if parent is None else (_add_training(steps, parent, schedule),)
        steps[step] = PaperStep("train", step, needs, network=network)
    return step
