"""`smoothed certify` as its users meet it."""

import warnings

import pytest
import torch

from launching import by_two
from smoothed import Result
from smoothed.cli.certify import CertificationOptions
from smoothed.evaluation.certified import RADII

FEW = ["--images", 6, "--selection-samples", 2, "--num-samples", 12, "--alpha", 0.01]


def test_a_table_and_rows(run, checkpoint, tmp_path, capsys):
    path = tmp_path / "rows.json"
    options = ["--sigma", "0.12,0.24", "--radii", "0,0.01", "--seed", 3, "--json", path]
    assert run("certify", "--model", checkpoint, *FEW, *options) == 0
    shown = capsys.readouterr()
    assert "6 images, 2 + 12 draws, alpha 0.01" in shown.out
    assert "certified %" in shown.out
    assert shown.out.count("PREDICT is correct on") == 2
    assert "eps = 8/255 requires r = 1.74" in shown.out
    assert f"result written to {path} and {path.with_suffix('.safetensors')}" in shown.err
    result = Result.load(path)
    rows = result.rows
    assert [(row["sigma"], row["radius"]) for row in rows] == [(0.12, 0.0), (0.12, 0.01), (0.24, 0.0), (0.24, 0.01)]
    assert all(row["images"] == 6 and row["dimensions"] == 3072 and row["seed"] == 3 for row in rows)
    assert all(row["certified"] <= row["certified_interval"][1] for row in rows)
    # An image is certified at a radius if its class is right and its own radius is as large.
    for row, (sigma, radius) in zip(rows, [(0, 0.0), (0, 0.01), (1, 0.0), (1, 0.01)], strict=True):
        right = result.tensors["certified_class"][sigma] == result.tensors["labels"]
        certified = right & (result.tensors["radius"][sigma] >= radius)
        assert row["certified"] == pytest.approx(float(certified.double().mean()))


@pytest.mark.slow
def test_a_folder_is_continued_from_and_read_off_at_other_radii(run, checkpoint, tmp_path, capsys):
    options = ["certify", "--model", checkpoint, *FEW, "--sigma", "0.12", "--out", tmp_path / "run"]
    assert run(*options, "--json", tmp_path / "first.json") == 0
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    assert len(kept) == 2  # a batch and the configuration
    assert run(*options, "--json", tmp_path / "again.json") == 0
    first, again = (Result.load(tmp_path / name) for name in ("first.json", "again.json"))
    assert again.rows == first.rows
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in first.tensors.items())
    assert run(*options, "--radii", "0.03") == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == kept
    capsys.readouterr()
    assert run(*options, "--seed", 1) == 2
    assert "error: out: expected an evaluation with seed = 1, got one with 0 in " in capsys.readouterr().err


@pytest.mark.slow
def test_the_checkpoints_own_sigma(run, tmp_path, capsys):
    path = tmp_path / "rows.json"
    assert run("certify", "--images", 2, "--selection-samples", 1, "--num-samples", 11, "--json", path) == 0
    assert "sigma 0.06016 (0.24 normalised)" in capsys.readouterr().out
    assert [row["radius"] for row in Result.load(path).rows] == list(RADII)


def test_the_default_radii_are_those_of_the_evaluation():
    default = CertificationOptions().radii
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
        (["--model", "nowhere"], "error: model: expected a bundled name (resnet20-cni-w), the path"),
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
        (["--num-samples", "0"], "error: num-samples: expected an integer of at least 1, got 0"),
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
    one, two = (Result.load(tmp_path / name) for name in ("one.json", "two.json"))
    assert two.rows == one.rows
    assert all(torch.equal(two.tensors[name], tensor) for name, tensor in one.tensors.items())
    assert done.stdout.count("PREDICT is correct on") == 3


def test_what_several_processes_cannot_share_is_refused(run, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for arguments in (["check"], ["--device", "cpu", "-q", "check"]):
        assert run(*arguments) == 2
    assert (
        "processes: expected one for check, or certify, evaluate, paper run, sweep, train, worst-case, got 2"
        in capsys.readouterr().err
    )
    assert run("--help") == 0
