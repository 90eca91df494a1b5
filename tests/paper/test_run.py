"""Runs of the tiny schedule: all declarations, killed and resumed ones, time limits, failures, networks of a zoo."""

import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
import tiny_paper

from launching import Started
from made_results import Page
from smoothed.checkpoint import load, read_header, read_tensors
from smoothed.cli.paper import paper_app
from smoothed.data.imageset import to_float
from smoothed.errors import DivergedError
from smoothed.evaluation.results import Result
from smoothed.injection import injected_noise
from smoothed.paper import run as run_module
from smoothed.paper.catalog import DECLARATIONS
from smoothed.paper.declaration import TableSpec
from smoothed.paper.folder import RunFolder
from smoothed.paper.images import schedule_images
from smoothed.paper.networks import NETWORKS, RANDOM_NETWORKS
from smoothed.paper.pages import write_pages
from smoothed.paper.plan import make_plan
from smoothed.paper.run import SilentObserver, run_paper
from smoothed.paper.schedules import TINY
from smoothed.paper.shown import shown_rows
from smoothed.paper.verdicts import judge_claims
from smoothed.paper.zoo import add_to_zoo
from smoothed.report.html.page import LARGEST

TRANSFER = ["table-3a"]


class Told(SilentObserver):
    """Writes down the steps and notes, and calls a function at each progress."""

    def __init__(self, at_progress=lambda *_: None):
        self.steps, self.notes, self.at_progress = [], [], at_progress

    def begin(self, step, *_):
        self.steps.append(step.name)

    def progress(self, done, total):
        self.at_progress(done, total)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The folder of a run of all declarations."""
    out = tmp_path_factory.mktemp("paper") / "all"
    outcome = run_paper([], TINY, out, zoo=out / "no zoo")
    assert outcome.finished
    assert outcome.failed == {}
    return RunFolder(out, TINY, out / "no zoo")


@pytest.mark.slow
def test_every_declaration_runs(everything, tmp_path):
    for spec in DECLARATIONS.values():
        if isinstance(spec, TableSpec):
            for row in shown_rows(spec, everything):
                assert (row.values is None) == (row.spec.measurement is None), row.spec.label
                wanted = [k for k in ("clean", "robust") if row.published(k) is not None and row.values]
                assert list(row.differences) == wanted
    page = write_pages([], everything, tmp_path / "pages").read_text(encoding="utf-8")
    assert "Not run." not in page
    # NAttack has 16 images and PGD 32, so that the fingerprints of this schedule, of fewer than 100, do not agree.
    untold = {judged.claim.name for judged in judge_claims(everything) for part in judged.parts if not part.estimate}
    assert untold == {"nattack"}
    figures = {f"{name}.{suffix}" for name in DECLARATIONS if "figure" in name for suffix in ("svg", "png")}
    assert figures <= {path.name for path in (tmp_path / "pages").iterdir()}
    again = Told()
    assert run_paper([], TINY, everything.path, zoo=everything.zoo, observer=again).finished
    assert again.steps == []
    assert not any((everything.path / "unfinished").iterdir())


@pytest.mark.slow
def test_all_evaluations_of_a_run_are_one_small_page(everything, tmp_path):
    out = tmp_path / "page.html"
    app = paper_app(lambda command: command, lambda text: text)
    command = ["show", "--out", everything.path, "--pages", tmp_path / "pages", "--report", out]
    result = CliRunner().invoke(app, [str(part) for part in command], catch_exceptions=False)
    assert f"report written to {out}" in result.output
    page = Page(out.read_text(encoding="utf-8"))
    stored = {path.stem for path in everything.result("any").parent.glob("*.json")}
    assert set(page.all("a")) >= stored - {"appendix-a"}
    assert out.stat().st_size < LARGEST
    assert "So that the page stays small" not in page.text


@pytest.mark.slow
def test_sigma_is_chosen_on_held_out_images_and_the_rest_measured_on_test_images(everything):
    results = {path.stem: Result.load(path) for path in everything.path.glob("results/*.[!s]*.json")}
    for name, result in results.items():
        split = "validation" if name.endswith(".tuning") else "test"
        assert result.data["name"].endswith(split), name
    chosen = {name.removesuffix(".tuning"): result for name, result in results.items() if name.endswith(".tuning")}
    assert {"at", "cni-w", "high-k", "epgd-diverged"} <= set(chosen)
    for name, result in chosen.items():
        best = max(result.rows, key=lambda row: (row["robust"], -row["sigma"]))
        assert read_header(everything.network(name))["smoothing"]["sigma"] == best["sigma"]
        tuned = results.get(f"{name}.pgd-7.sigma-tuned") or results[f"{name}.pgd-10.sigma-tuned"]
        assert tuned.rows[0]["sigma"] == pytest.approx(best["sigma"])


@pytest.mark.slow
def test_the_mean_network_has_no_noise(everything):
    model = load(everything.network("cni-w"))
    injected_noise(model).undo()
    data = schedule_images(TINY, "cifar10", "test").first(TINY.table_images)
    with torch.no_grad():
        right = (model(to_float(data.images)).argmax(1) == data.labels).float().mean()
    (row,) = everything.load_result("cni-w.pgd-7.mean-network").rows
    assert (row["clean"], row["clean_std"]) == (pytest.approx(float(right)), 0.0)


@pytest.mark.slow
def test_random_networks_are_those_with_noise(everything):
    random = {name for name in NETWORKS if read_header(everything.network(name))["injection"]}
    assert random == set(RANDOM_NETWORKS)


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_gives_the_same_rows(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = Started(partial(tiny_paper.main, str(whole), TRANSFER)).end()
    assert done.stdout == "finished 4\n", done.stderr
    for event in (2, 8):  # in the first training; and after the first of an evaluation's two runs
        killed = Started(partial(tiny_paper.main, str(parts), TRANSFER, event)).end()
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(parts.glob("unfinished/*/*.safetensors"))) == 1
    done = Started(partial(tiny_paper.main, str(parts), TRANSFER)).end()
    assert done.stdout == "finished 4\n", done.stderr
    names = [path.name for path in sorted(whole.glob("results/*.json"))]
    assert [path.name for path in sorted(parts.glob("results/*.json"))] == names
    for name in names:
        first, second = (Result.load(folder / "results" / name) for folder in (whole, parts))
        assert first.rows == second.rows
        assert first.tensors.keys() == second.tensors.keys()
        assert all(torch.equal(first.tensors[key], second.tensors[key]) for key in first.tensors)
    for path in whole.glob("networks/*/best.safetensors"):
        first, second = (read_tensors(folder / path.relative_to(whole))[0] for folder in (whole, parts))
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_the_time_limit_stops_between_and_inside_steps(tmp_path):
    out = tmp_path / "run"
    none = run_paper(TRANSFER, TINY, out, time_limit=0.0)
    assert (none.done, none.total, none.finished) == (0, 4, False)
    assert run_paper(["cni-w", "cni-w-source"], TINY, out).finished
    limit = 20.0
    slow = run_paper(TRANSFER, TINY, out, time_limit=limit, observer=Told(lambda *_: time.sleep(limit)))
    assert (slow.done, slow.finished) == (2, False)
    assert len(list(out.glob("unfinished/*/*.safetensors"))) == 1
    rest = Told()
    assert run_paper(TRANSFER, TINY, out, observer=rest).finished
    assert len(rest.steps) == 2


@pytest.mark.slow
def test_a_network_of_the_zoo_is_not_trained_again(tmp_path):
    zoo, told = tmp_path / "zoo", Told()
    assert run_paper(["cni-w"], TINY, tmp_path / "first").finished
    zoo.mkdir()
    (tmp_path / "first/networks/cni-w/best.safetensors").rename(zoo / "cni-w.safetensors")
    assert run_paper(["high-k"], TINY, tmp_path / "second", zoo=zoo, observer=told).finished
    assert told.steps == ["train high-k"]
    assert read_header(tmp_path / "second/networks/high-k/best.safetensors")["training"]["config"]["start"].endswith(
        "zoo/cni-w.safetensors"
    )


@pytest.mark.slow
def test_evaluations_of_a_network_with_rounded_strengths_are_not_repeated(tmp_path):
    """Files of the zoo hold the strengths of the noise in half precision, and results are of the loaded numbers."""
    zoo, second, third = tmp_path / "zoo", tmp_path / "second", tmp_path / "third"
    assert run_paper(["cni-w"], TINY, tmp_path / "first").finished
    add_to_zoo(tmp_path / "first/networks/cni-w/best.safetensors", "cni-w", zoo)
    assert run_paper(["figure-1"], TINY, second, zoo=zoo).finished
    shutil.copytree(second / "results", third / "results")
    for out in (second, third):
        told = Told()
        assert run_paper(["figure-1"], TINY, out, zoo=zoo, observer=told).finished
        assert told.steps == []


def test_a_training_that_diverges_does_not_stop_the_others(tmp_path, monkeypatch):
    performed = []

    def perform(step, _context):
        performed.append(step.name)
        if step.name == "train cni-w":
            raise DivergedError("training diverged")

    monkeypatch.setattr(run_module, "perform", perform)
    told = Told()
    outcome = run_paper(["high-k", "at", "appendix-a"], TINY, tmp_path, zoo=tmp_path / "zoo", observer=told)
    assert performed == ["train cni-w", "train at", "appendix-a"]
    assert outcome.failed == {"train cni-w": "training diverged"}
    assert outcome.waiting == ("train high-k",)
    assert told.notes == ["train cni-w: training diverged"]
    assert not outcome.finished


def test_without_training_only_finished_networks_are_evaluated(tmp_path, monkeypatch):
    """One network of table 1 is there: its sigma is tuned and its rows are measured, and nothing else."""
    performed = []
    monkeypatch.setattr(run_module, "perform", lambda step, _context: performed.append(step))
    monkeypatch.setattr(run_module, "is_done", lambda step, _folder: step.name == "train at")
    outcome = run_paper(["table-1"], TINY, tmp_path, training=False)
    of_network = [s for s in make_plan(["table-1"], TINY) if s.kind != "train" and "train at" in s.needs]
    assert performed == of_network
    assert {step.kind for step in performed} == {"tune", "evaluate"}
    assert outcome.finished
    assert outcome.total == 1 + len(of_network)


def test_the_small_data_set_has_splits_without_common_images():
    splits = [schedule_images(TINY, "cifar10", split) for split in ("train", "validation", "test")]
    images = torch.cat([split.images for split in splits]).flatten(1)
    assert [len(split) for split in splits] == [64, 64, 64]
    assert images.shape[1:] == (3 * 8 * 8,)
    assert len(torch.unique(images, dim=0)) == len(images)


def test_every_evaluation_of_the_plan_has_a_short_name():
    assert all(len(step.name) < 80 and "/" not in step.name for step in make_plan([], TINY))
