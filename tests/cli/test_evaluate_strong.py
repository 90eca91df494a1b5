"""`smoothed evaluate --protocol strong` as its users meet it."""

import json

import pytest
import torch

from smoothed.checkpoint import describe, locate, read_header, save
from smoothed.cli.evaluate_strong import fixed_beforehand, forecast
from smoothed.cli.evaluated import Evaluated
from smoothed.evaluation.strong_protocol import StrongProtocol
from smoothed.models import build

QUICK = [
    *("--protocol", "strong", "--images", 1, "--steps", 1, "--restarts", 1, "--draws", 1, "--queries", 2),
    *("--resubmissions", "1,3"),
]


@pytest.fixture
def checkpoint(tmp_path):
    """A function of a header's entries that gives a ResNet-20 that has learned nothing."""

    def make(**more):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build("resnet20")
        return save(
            tmp_path / "untrained.safetensors", model, describe("resnet20", model, [], tuple("abcdefghij"), **more)
        )

    return make


def chosen_on(data):
    return {
        "smoothing": {"sigma": 0.1, "sigma_units": "normalized", "vote": "soft", "num_samples": 2, "chosen_on": data}
    }


def test_it_prints_a_table_and_writes_rows_and_goes_on(run, tmp_path, capsys):
    path = tmp_path / "own.safetensors"
    path.write_bytes(locate("resnet20-cni-w").read_bytes())
    command = ["evaluate", "--model", path, *QUICK, "--num-samples", 1, "--out", tmp_path / "run"]
    assert run(*command, "--json", tmp_path / "rows.json", "--record") == 0
    shown = capsys.readouterr()
    assert "prediction vote of M = 1, sigma 0.24 normalized" in shown.out
    assert "worst case" in shown.out
    assert "forward and" in shown.err
    written = json.loads((tmp_path / "rows.json").read_text())
    assert (written["protocol"], written["data"], written["sweep"]) == ("strong", "cifar10 sample", [])
    worst = written["rows"][-1]
    assert (worst["network"], worst["attack"], worst["images"]) == ("smoothed", "worst case", 1)
    assert set(worst["worst"]) == {"1", "3"}
    assert read_header(path)["strong"]["rows"] == written["rows"]
    assert run(*command, "--json", tmp_path / "again.json") == 0
    assert (tmp_path / "again.json").read_text() == (tmp_path / "rows.json").read_text()
    capsys.readouterr()
    assert run(*command, "--seed", 1) == 2
    assert "error: out: the evaluation there has seed = 0, this one 1; give the same" in capsys.readouterr().err


def test_the_vote_and_its_draws_are_the_checkpoints_own(checkpoint):
    path = checkpoint(**chosen_on("cifar10 validation"))
    evaluated = Evaluated.load(str(path), "sample", "test", 1, "float32", 250, None)
    own = {"sigma": 0.1, "sigma_units": "normalized", "num_samples": 2, "vote": "soft"}
    assert fixed_beforehand(evaluated, None, None, None, None) == own
    given = {"sigma": 0.3, "sigma_units": "pixel", "num_samples": 8, "vote": "weighted"}
    assert fixed_beforehand(evaluated, "0.3", "pixel", "weighted", "8") == given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "error: sigma: expected a deviation that was fixed beforehand, got none in the checkpoint and no --sigma; ",
        ),
        ([], "choose it with `smoothed evaluate --split validation --tune`"),
        (["--sigma", "0.1,0.2"], "error: sigma: expected one value with --protocol strong, got 2; fix it beforehand"),
        (["--sigma", 0.1, "--num-samples", "1,2"], "error: num-samples: expected one value with --protocol strong"),
        (["--sigma", 0.1, "--votes", "soft,weighted"], "error: vote: expected one of prediction, weighted, soft"),
        (["--sigma", 0.1, "--attack", "pgd"], "error: attack: expected an option of --protocol strong"),
        (["--sigma", 0.1, "--tune"], "error: tune: expected an option of --protocol strong"),
        (["--sigma", 0.1, "--draws", "4,1"], "error: draws: expected ascending numbers, each once, got 4,1"),
        (["--sigma", 0.1, "--alpha", 2], "error: alpha: expected a number in"),
    ],
)
def test_bad_options_are_one_line(run, checkpoint, arguments, message, capsys):
    assert run("evaluate", "--model", checkpoint(), *QUICK, *arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown.strip().splitlines()[-1]


def test_sigma_is_not_chosen_on_the_images_that_are_reported(run, checkpoint, capsys):
    assert run("evaluate", "--model", checkpoint(**chosen_on("cifar10 sample")), *QUICK) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line == "error: split: expected other images than those that sigma was chosen on, got cifar10 sample"


def test_options_of_one_protocol_are_refused_with_the_other(run, capsys):
    assert run("evaluate", "--draws", 4) == 2
    assert "error: draws: expected an option of --protocol paper" in capsys.readouterr().err
    assert run("evaluate", "--protocol", "weak") == 2
    assert "error: protocol: expected one of paper, strong, got 'weak'" in capsys.readouterr().err


def test_the_forecast_names_both_ends_of_the_sweep():
    told = forecast(StrongProtocol(sigma=0.1), 1000, 10)
    assert told.startswith("at most ")
    assert "with 1, and " in told
    assert "with 64 draws a gradient" in told
    assert forecast(StrongProtocol(sigma=0.1, draws=(4,)), 1000, 10).count("forward") == 1
