"""`smoothed evaluate --protocol strong` as its users meet it."""

import json

import pytest
import torch

from launching import by_two
from smoothed.checkpoint import describe, locate, read_header, save
from smoothed.cli.evaluate_strong import evaluate_strong, fixed_beforehand, forecast
from smoothed.cli.evaluated import Evaluated
from smoothed.errors import ArgumentError
from smoothed.evaluation.certified import CertificationProtocol
from smoothed.evaluation.worst_case.protocol import StrongProtocol
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


@pytest.mark.slow
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
        (["--sigma", 0.1, "--certify", "--noise", "uniform"], "error: noise: expected Gaussian, for which alone"),
        (["--sigma", 0.1, "--certify", "--votes", "soft"], "error: vote: expected the prediction vote, which alone is"),
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
    assert run("evaluate", "--certify") == 2
    assert "error: certify: expected an option of --protocol paper" in capsys.readouterr().err
    assert run("evaluate", "--protocol", "weak") == 2
    assert "error: protocol: expected one of paper, strong, got 'weak'" in capsys.readouterr().err


def test_the_forecast_names_both_ends_of_the_sweep():
    told = forecast(StrongProtocol(sigma=0.1), 1000, 10)
    assert told.startswith("at most ")
    assert "with 1, and " in told
    assert "with 64 draws a gradient" in told
    assert forecast(StrongProtocol(sigma=0.1, draws=(4,)), 1000, 10).count("forward") == 1
    certification = CertificationProtocol(selection_samples=100, num_samples=1000)
    assert forecast(StrongProtocol(sigma=0.1), 1000, 10, certification).endswith(
        "; 1,100,000 forward passes to certify"
    )


def certify(path, tmp_path, **options):
    """The command as `smoothed evaluate` calls it, on one image."""
    evaluated = Evaluated.load(str(path), "sample", "test", 1, "float32", 250, tmp_path / "run")
    quick = {"eps": 8 / 255, "steps": 1, "noise": "gaussian", "sigma": "0.24", "sigma_units": None, "vote": None}
    quick |= {"num_samples": "1", "draws": "1", "sweep_images": 1, "restarts": 1, "queries": 2, "resubmissions": "1"}
    quick |= {"alpha": None, "runs": 1, "seed": 0, "record": False, "json": tmp_path / "rows.json", "certify": True}
    evaluate_strong(evaluated, **quick | options)


@pytest.mark.slow
def test_certified_lines_stand_beside_the_empirical_ones(checkpoint, tmp_path, capsys):
    certify(checkpoint(), tmp_path)
    shown = capsys.readouterr()
    assert "1,100 forward passes to certify" in shown.err
    lines = shown.out.splitlines()
    (title,) = (number for number, line in enumerate(lines) if line.strip() == "certified, L2")
    assert any(line.strip().startswith("worst case") for line in lines[:title])
    assert [line.split()[2] for line in lines[title + 1 : title + 5]] == ["0", "0.0314", "0.1", "1.74"]
    words = " ".join(shown.out.split())
    assert "CERTIFY abstains on" in words
    assert "eps = 8/255 would take r = 1.74." in words
    written = json.loads((tmp_path / "rows.json").read_text())
    assert [row["radius"] for row in written["certified"]] == [0.0, 8 / 255, 0.1, 8 / 255 * 3072**0.5]
    assert {row["images"] for row in written["certified"]} == {written["rows"][-1]["images"]} == {1}
    assert {(row["sigma"], row["num_samples"]) for row in written["certified"]} == {(0.24, 1000)}


def test_what_cannot_be_certified_is_refused_before_the_attacks(checkpoint, tmp_path, capsys):
    with pytest.raises(ArgumentError, match="noise: expected Gaussian, for which alone the radius holds, got Uniform"):
        certify(checkpoint(), tmp_path, noise="uniform")
    assert not capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(run, tmp_path):
    command = ["evaluate", *QUICK, "--num-samples", 2, "--runs", 2, "--precision", "float32"]
    assert run(*command, "--json", tmp_path / "one.json") == 0
    done = by_two(*command, "--json", tmp_path / "two.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two.json").read_text()) == json.loads((tmp_path / "one.json").read_text())
    assert done.stdout.count("worst case") == 2  # of the mean network and of the smoothed one: one process prints
    assert done.stderr.count("forward and") == 1
