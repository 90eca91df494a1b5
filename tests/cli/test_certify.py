"""`smoothed certify` as its users meet it."""

import inspect
import json
import warnings

import pytest
import torch

from launching import by_two
from smoothed.checkpoint import describe, save
from smoothed.cli.certify import certify
from smoothed.evaluation.certified import RADII
from smoothed.injection import inject_preset
from smoothed.models import build

FEW = ["--images", 6, "--selection-samples", 2, "--num-samples", 12, "--alpha", 0.01]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A ResNet-20 with noise inside that has learned nothing: one class wins nearly everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("resnet20")
    injection = inject_preset(model, "pni-w-layer").to_json()
    header = describe("resnet20", model, injection, tuple("abcdefghij"))
    return save(tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors", model, header)


def test_a_table_and_rows(run, checkpoint, tmp_path, capsys):
    path = tmp_path / "rows.json"
    options = ["--sigma", "0.12,0.24", "--radii", "0,0.01", "--seed", 3, "--json", path]
    assert run("certify", "--model", checkpoint, *FEW, *options) == 0
    shown = capsys.readouterr()
    assert "6 images, 2 + 12 draws, alpha 0.01" in shown.out
    assert "certified %" in shown.out
    assert shown.out.count("PREDICT is correct on") == 2
    assert "eps = 8/255 requires r = 1.74" in shown.out
    assert f"rows written to {path}" in shown.err
    rows = json.loads(path.read_text())
    assert [(row["sigma"], row["radius"]) for row in rows] == [(0.12, 0.0), (0.12, 0.01), (0.24, 0.0), (0.24, 0.01)]
    assert all(row["images"] == 6 and row["dimensions"] == 3072 and row["seed"] == 3 for row in rows)
    assert all(row["certified"] <= row["certified_interval"][1] for row in rows)


def test_a_folder_is_continued_from_and_read_off_at_other_radii(run, checkpoint, tmp_path, capsys):
    options = ["certify", "--model", checkpoint, *FEW, "--sigma", "0.12", "--out", tmp_path / "run"]
    assert run(*options, "--json", tmp_path / "first.json") == 0
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    assert len(kept) == 2  # a batch and the configuration
    assert run(*options, "--json", tmp_path / "again.json") == 0
    assert (tmp_path / "again.json").read_text() == (tmp_path / "first.json").read_text()
    assert run(*options, "--radii", "0.03") == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == kept
    capsys.readouterr()
    assert run(*options, "--seed", 1) == 2
    assert "error: out: expected an evaluation with seed = 1, got one with 0 in " in capsys.readouterr().err


@pytest.mark.slow
def test_the_checkpoints_own_sigma(run, tmp_path, capsys):
    path = tmp_path / "rows.json"
    assert run("certify", "--images", 2, "--selection-samples", 1, "--num-samples", 11, "--json", path) == 0
    assert "sigma 0.06016 (0.24 normalized)" in capsys.readouterr().out
    assert [row["radius"] for row in json.loads(path.read_text())] == list(RADII)


def test_the_default_radii_are_those_of_the_evaluation():
    default = inspect.signature(certify).parameters["radii"].default
    assert tuple(float(radius) for radius in default.split(",")) == RADII


@pytest.mark.slow
def test_too_few_draws_are_told_of_in_a_line(run, checkpoint, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        options = ["--sigma", 0.1, "--images", 2, "--selection-samples", 1, "--num-samples", 3]
        assert run("certify", "--model", checkpoint, *options) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "warning: num_samples: 3 draws abstain on every image at alpha 0.001; use 10 or more" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere"], "error: model: expected a checkpoint file or a bundled name"),
        (["--sigma", "0"], "error: sigma: expected a standard deviation above 0 on every channel"),
        (["--sigma", "much"], "error: sigma: expected numbers separated by commas, got 'much'"),
        (
            ["--sigma", "0.1", "--sigma-normalized", "0.4"],
            "error: sigma: expected either --sigma or --sigma-normalized, got both",
        ),
        (["--sigma-normalized", "much"], "error: sigma-normalized: expected numbers separated by commas, got 'much'"),
        (["--radii", "0,-1"], "error: radii: expected a finite number of at least 0, got -1"),
        (["--radii", "large"], "error: radii: expected numbers separated by commas, got 'large'"),
        (["--alpha", "1"], "error: alpha: expected a number in [1e-12, 0.5), got 1"),
        (["--num-samples", "0"], "error: num_samples: expected an integer of at least 1, got 0"),
        (["--images", "0"], "error: images: expected 1 to 1000"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, message, capsys):
    assert run("certify", *arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown.strip().splitlines()[-1]
    assert "Traceback" not in shown


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(run, checkpoint, tmp_path):
    command = ["certify", "--model", checkpoint, *FEW, "--sigma", "0.12,0.24,0.36"]
    assert run(*command, "--json", tmp_path / "one.json") == 0
    done = by_two(*command, "--json", tmp_path / "two.json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "two.json").read_text() == (tmp_path / "one.json").read_text()
    assert done.stdout.count("PREDICT is correct on") == 3


def test_what_several_processes_cannot_share_is_refused(run, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("check") == 2
    assert (
        "processes: expected one for check, or certify, evaluate, sweep, train, worst-case, got 2"
        in capsys.readouterr().err
    )
    assert run("--help") == 0
