"""The campaign's runs are what their recorded commands say."""

import importlib.util
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import smoothed.data.named
import smoothed.training.loop
from smoothed.cli.main import main
from smoothed.training.loop import TrainingResult
from smoothed.training.recipes import RECIPES

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def campaign():
    specification = importlib.util.spec_from_file_location("campaign", BENCHMARKS / "campaign.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["campaign"] = module
    specification.loader.exec_module(module)
    return module


ENTRIES = [(name, entry) for name, entries in campaign().SCHEDULES.items() for entry in entries]


@pytest.mark.parametrize(("schedule", "entry"), ENTRIES, ids=[f"{name}-{entry.name}" for name, entry in ENTRIES])
def test_the_command_of_an_entry_trains_its_configuration(schedule, entry, monkeypatch):
    asked = []

    def train(config, *_, **__):
        asked.append(config)
        return TrainingResult(finished=False, step=1, total_steps=2, best=None, seconds=0.0, fallback=None)

    monkeypatch.setattr(smoothed.training.loop, "train", train)
    monkeypatch.setattr(smoothed.data.named, "load_training", lambda data: (data, None, None))
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(entry.command(Path("runs")))[1:])
    assert stop.value.code == 0
    start = None if entry.start is None else f"runs/{entry.start}/best.safetensors"
    expected = RECIPES[entry.recipe].config(**entry.settings, start=start)
    assert asked == [replace(expected, data="cifar10")]
    assert schedule in campaign().SCHEDULES


def test_fine_tuning_follows_what_it_starts_from():
    for entries in campaign().SCHEDULES.values():
        names = [entry.name for entry in entries]
        assert len(set(names)) == len(names)
        assert all(entry.start in names[: names.index(entry.name)] for entry in entries if entry.start is not None)


def test_the_table_of_the_repository_is_written_from_its_results(tmp_path):
    module = campaign()
    results = BENCHMARKS.parent / "docs/results/short"
    shutil.copytree(results, tmp_path / "short")
    module.write_table(tmp_path / "short", module.SHORT, "short")
    assert (tmp_path / "short/README.md").read_text() == (results / "README.md").read_text()


def test_the_table_leaves_what_is_missing_empty(tmp_path):
    module = campaign()
    module.write_table(tmp_path, module.SHORT, "short")
    rows = [line for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert [row.split("|")[1].strip() for row in rows] == [
        name for entry in module.SHORT for name in entry.measured.values()
    ]
    assert all(not cell.strip() for row in rows for cell in row.split("|")[2:])
