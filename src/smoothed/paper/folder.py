"""The folder of a run: where networks and results lie, and whether they belong to this schedule and version."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoothed.checkpoint import SUFFIX, package_version, read_header
from smoothed.errors import ArgumentError, DataError
from smoothed.evaluation.results import Result
from smoothed.paper.declaration import NetworkSpec
from smoothed.paper.networks import NETWORKS
from smoothed.paper.schedules import PAPER_SCHEDULES, PaperSchedule
from smoothed.training.config import TrainingConfig
from smoothed.training.recipes import RECIPES
from smoothed.utils.checks import check_choice
from smoothed.utils.files import write_json

RECORD = "paper.json"
"""File that says which schedule and which version of this package a folder belongs to."""
FINISHED = "finished.json"
"""File of a training run that is complete, with its configuration."""
UNCOMPARED = ("recipe", "data", "start", "precision", "validation_attack_images")
"""Fields of `TrainingConfig` in which a network of a zoo may differ from the declared one."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run's files, and what is in them.

    Attributes:
        path: the folder.
        schedule: its schedule.
        zoo: folder of finished networks, one file each.
    """

    path: Path
    schedule: PaperSchedule
    zoo: Path = field(default_factory=lambda: Path("zoo"))

    def open(self) -> None:
        """Create the folder and its record, or check that the record is of this schedule and version.

        Raises:
            ArgumentError: the folder belongs to another schedule, or to another version of this package.
            OutputError: the folder can't be written.
        """
        record = self.path / RECORD
        expected = {"schedule": self.schedule.name, "version": package_version()}
        if not record.is_file():
            write_json(expected, record)
            return
        found = read_record(self.path)
        for name, value in expected.items():
            if found[name] != value:
                hint = "use another folder" if name == "version" else f"use --schedule {found[name]}, or another folder"
                raise ArgumentError("out", f"a folder of {name} {value}", f"{self.path} of {name} {found[name]}", hint)

    def training(self, network: NetworkSpec) -> Path:
        """Folder of the training run of a network."""
        return self.path / "networks" / network.run_name

    def result(self, name: str) -> Path:
        """JSON file of a result."""
        return self.path / "results" / f"{name}.json"

    def batches(self, name: str) -> Path:
        """Folder of the finished batches of an evaluation."""
        return self.path / "unfinished" / name

    def lock(self, name: str) -> Path:
        """File that is locked while a step is worked at."""
        return self.path / "locks" / f"{name.replace(' ', '-')}.lock"

    def network(self, name: str) -> Path:
        """File of a trained network, in this folder or in the zoo.

        Raises:
            ArgumentError: there is none; the message has the command that makes it.
        """
        path = self.find_network(name)
        if path is None:
            command = f"smoothed paper run {name} --schedule {self.schedule.name} --out {self.path}"
            places = f"{self._own_file(NETWORKS[name])} or {self.zoo / name}{SUFFIX}"
            raise ArgumentError(
                "network", f"the network {name} at {places}", "no such file", f"make it with `{command}`"
            )
        return path

    def find_network(self, name: str) -> Path | None:
        """File of a trained network; None if its training is not finished and the zoo has none.

        Raises:
            ArgumentError: the finished run has another configuration than the schedule.
            CheckpointError: the file of the zoo is damaged.
        """
        network = NETWORKS[name]
        own = self._own_file(network)
        if self.is_trained(network) and own.is_file():
            return own
        zoo = self.zoo / f"{name}{SUFFIX}"
        return zoo if zoo.is_file() and self.zoo_difference(name) is None else None

    def is_trained(self, network: NetworkSpec) -> bool:
        """Whether the training run of a network is complete.

        Raises:
            ArgumentError: it has another configuration than the schedule.
        """
        path = self.training(network) / FINISHED
        if not path.is_file():
            return False
        difference = _difference(_read(path)["config"], self.config(network, None), ("start",))
        if difference is not None:
            name, found, expected = difference
            hint = "move this folder away to train it again, or use another --out"
            raise ArgumentError(
                "out", f"{network.run_name} trained with {name} = {expected!r}", f"{found!r} in {path.parent}", hint
            )
        return True

    def zoo_difference(self, name: str) -> str | None:
        """What keeps a network of the zoo from being used, in a sentence; None if it is of this schedule."""
        path = self.zoo / f"{name}{SUFFIX}"
        found = read_header(path).get("training", {}).get("config")
        if not isinstance(found, dict):
            return f"{path} does not say how it was trained and is not used"
        difference = _difference(found, self.config(NETWORKS[name], None), UNCOMPARED)
        if difference is None:
            return None
        setting, there, expected = difference
        return f"{path} was trained with {setting} = {there!r} instead of {expected!r} and is not used"

    def config(self, network: NetworkSpec, start: Path | None) -> TrainingConfig:
        """Training configuration of a network; `start` is the checkpoint that it is fine-tuned from."""
        settings = self.schedule.training_of(network)
        # The same text whether the folder was given by a relative or by an absolute path.
        text = None if start is None else os.path.relpath(start)
        return RECIPES[network.recipe].config(**settings, start=text)

    def load_result(self, name: str) -> Result | None:
        """A finished result with its tensors; None if it is not there.

        Raises:
            DataError: the file is damaged.
        """
        path = self.result(name)
        return Result.load(path) if path.is_file() else None

    def _own_file(self, network: NetworkSpec) -> Path:
        return self.training(network) / f"{network.kind}{SUFFIX}"


def read_record(path: Path) -> dict[str, Any]:
    """Read which schedule and version a folder belongs to.

    Raises:
        ArgumentError: the folder is no folder of a run.
        DataError: its record is damaged.
    """
    record = path / RECORD
    if not record.is_file():
        hint = "make one with `smoothed paper run`"
        raise ArgumentError("out", f"the folder of a run, with {RECORD} in it", str(path), hint)
    found = _read(record)
    if not {"schedule", "version"} <= set(found):
        raise DataError(f"{record}: expected schedule and version, got {', '.join(found) or 'nothing'}")
    return found


def existing_folder(path: Path) -> RunFolder:
    """The folder of an earlier run, of whatever version.

    Raises:
        ArgumentError: the folder is no folder of a run, or its schedule is unknown.
    """
    return RunFolder(path, PAPER_SCHEDULES[check_choice(read_record(path)["schedule"], PAPER_SCHEDULES, "schedule")])


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a JSON object, got {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


def _difference(
    found: Mapping[str, Any], expected: TrainingConfig, ignored: tuple[str, ...]
) -> tuple[str, object, object] | None:
    """The first setting that differs: its name, the value found, and the expected one."""
    complete = {**TrainingConfig().to_json(), **found}
    for name, value in expected.to_json().items():
        if name not in ignored and complete[name] != value:
            return name, complete[name], value
    return None
