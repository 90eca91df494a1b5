"""`smoothed check` as its users meet it: the table, the last sentence, the file, and what it refuses."""

import json

import pytest
import torch

from smoothed.checkpoint import describe, save
from smoothed.injection import inject_preset
from smoothed.models import build

QUICK = ["--images", 6, "--steps", 1, "--num-samples", 2, "--eot-samples", 1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A ResNet-20 with noise inside that has learned nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("resnet20")
    header = describe("resnet20", model, inject_preset(model, "pni-w-layer").to_json(), tuple("abcdefghij"))
    return save(tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors", model, header)


@pytest.mark.slow
def test_prints_a_table_and_writes_the_findings(run, checkpoint, tmp_path, capsys):
    path = tmp_path / "findings.json"
    options = ["--sigma-normalized", 0.24, "--eps", "4/255", "--seed", 3, "--json", path]
    assert run("check", "--model", checkpoint, *QUICK, *options) == 0  # whatever the verdict: six images prove nothing
    shown = capsys.readouterr().out
    written = json.loads(path.read_text())
    assert len(written["findings"]) == 11
    assert {finding["verdict"] for finding in written["findings"]} <= {"pass", "suspicious", "unclear"}
    assert (written["eps"], written["steps"], written["num_samples"], written["images"]) == (4 / 255, 1, 2, 6)
    assert (written["sigma_normalized"], written["noise"], written["seed"]) == (0.24, "gaussian", 3)
    assert shown.strip().splitlines()[-1] == written["summary"]
    words = " ".join(shown.replace("│", " ").split())
    assert "6 images" in words
    assert "PGD-1 over 1 draws at eps 4/255" not in words
    assert "PGD-1 over one draw at eps 4/255" in words
    assert "gradients do not vanish" in words


@pytest.mark.slow
def test_a_folder_is_continued_from(run, checkpoint, tmp_path, capsys):
    command = ["check", "--model", checkpoint, *QUICK, "--sigma", 0.24, "--out", tmp_path / "run"]
    assert run(*command, "--json", tmp_path / "first.json") == 0
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    assert run(*command, "--json", tmp_path / "again.json") == 0
    assert (tmp_path / "again.json").read_text() == (tmp_path / "first.json").read_text()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == kept
    capsys.readouterr()
    assert run(*command, "--eps", "4/255") == 2
    assert "error: out: expected an evaluation with eps = 0.015" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nowhere"], "error: model: expected a checkpoint file or a bundled name"),
        (["--vote", "hard"], "error: vote: expected one of prediction, weighted, soft, got 'hard'"),
        (["--noise", "pink"], "error: noise: expected one of gaussian, uniform, laplace, got 'pink'"),
        (["--sigma", 0.06, "--sigma-normalized", 0.24], "error: sigma: expected either --sigma or --sigma-normalized"),
        (["--eps", "0"], "error: eps: expected a radius above 0"),
        (["--steps", "0"], "error: steps: expected an integer of at least 1"),
        (["--num-samples", "0"], "error: num_samples: expected an integer of at least 1"),
        (["--images", "5000"], "error: images: expected 1 to 1000"),
        (["--data", "nowhere"], "error: data: expected sample, cifar10, cifar100, or a folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, options, message, capsys):
    assert run("check", *options) == 2
    shown = capsys.readouterr().err
    assert message in shown.strip().splitlines()[-1]
    assert "Traceback" not in shown


def test_help_says_that_the_exit_code_is_no_verdict(run, capsys):
    assert run("check", "--help") == 0
    assert "exit code is 0 whatever the verdict" in " ".join(capsys.readouterr().out.replace("│", " ").split())
