"""`smoothed worst-case` as its users meet it."""

import pytest
import torch

from launching import by_two
from smoothed import Result
from smoothed.checkpoint import describe, locate, read_header, save
from smoothed.cli.inputs import CommandInputs
from smoothed.cli.options import DataOptions, ModelOptions, SmoothingOptions
from smoothed.cli.worst_case import fixed_beforehand, forecast
from smoothed.data.sample import load_sample
from smoothed.evaluation.certified import CertificationProtocol
from smoothed.evaluation.worst_case.protocol import WorstCaseProtocol
from smoothed.models import build
from smoothed.smoothing.config import NoiseConfig, SmoothingConfig

QUICK = [
    *("--images", 1, "--steps", 1, "--restarts", 1, "--eot-samples", 1, "--queries", 2),
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
            tmp_path / "untrained.safetensors", model, describe("resnet20", model, [], load_sample().classes, **more)
        )

    return make


def chosen_on(data):
    return {"smoothing": {"sigma_normalized": 0.1, "vote": "soft", "num_samples": 2, "chosen_on": data}}


@pytest.mark.slow
def test_it_prints_a_table_and_writes_rows_and_continues(run, tmp_path, capsys):
    path = tmp_path / "own.safetensors"
    path.write_bytes(locate("resnet20-cni-w").read_bytes())
    command = ["worst-case", "--model", path, *QUICK, "--num-samples", 1, "--out", tmp_path / "run"]
    assert run(*command, "--json", tmp_path / "rows.json", "--record") == 0
    shown = capsys.readouterr()
    assert "prediction vote of M = 1, sigma 0.06016 (0.24 normalised)" in shown.out
    assert "worst case" in shown.out
    assert "forward and" in shown.err
    written = Result.load(tmp_path / "rows.json")
    assert (written.kind, written.data["name"], written.summary["eot_sweep"]) == ("worst-case", "cifar10 sample", [])
    worst = written.rows[-1]
    assert (worst["network"], worst["attack"], worst["images"]) == ("smoothed", "worst case", 1)
    assert set(worst["worst"]) == {"1", "3"}
    assert read_header(path)["worst_case"]["rows"] == written.rows
    assert run(*command, "--json", tmp_path / "again.json") == 0
    assert Result.load(tmp_path / "again.json").rows == written.rows
    capsys.readouterr()
    assert run(*command, "--seed", 1) == 2
    assert "error: out: expected an evaluation with seed = 1, got one with 0 in " in capsys.readouterr().err


def test_the_vote_and_its_draws_are_the_checkpoints_own(checkpoint):
    path = checkpoint(**chosen_on("cifar10 validation"))
    evaluated = CommandInputs.load(ModelOptions(str(path)), DataOptions(images=1))
    own = SmoothingConfig(NoiseConfig(sigma_normalized=0.1), "soft", 2)
    assert fixed_beforehand(evaluated, SmoothingOptions()) == own
    given = SmoothingConfig(NoiseConfig(sigma=0.3, law="uniform"), "weighted", 8)
    options = SmoothingOptions("uniform", sigma=0.3, vote="weighted", num_samples=8)
    assert fixed_beforehand(evaluated, options) == given
    partly = SmoothingConfig(NoiseConfig(sigma_normalized=0.2), "soft", 2)
    assert fixed_beforehand(evaluated, SmoothingOptions(sigma_normalized=0.2)) == partly


def test_a_checkpoint_without_smoothing_takes_the_default_vote(checkpoint):
    evaluated = CommandInputs.load(ModelOptions(str(checkpoint())), DataOptions(images=1))
    expected = SmoothingConfig(NoiseConfig(sigma=0.3), "prediction", 64)
    assert fixed_beforehand(evaluated, SmoothingOptions(sigma=0.3)) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "untrained.safetensors; give --sigma (0 for no input noise), which `smoothed sweep` helps to choose",
        ),
        (["--sigma", 0.1, "--sigma-normalized", 0.4], "error: sigma: expected either --sigma or --sigma-normalized"),
        (["--sigma", "0.1,0.2"], "error: Invalid value for '--sigma'"),
        (["--sigma", 0.1, "--num-samples", "1,2"], "error: Invalid value for '--num-samples'"),
        (["--sigma", 0.1, "--vote", "soft,weighted"], "error: vote: expected one of prediction, weighted, soft"),
        (["--sigma", 0.1, "--attack", "pgd"], "No such option: --attack"),
        (["--sigma", 0.1, "--tune"], "No such option: --tune"),
        (["--sigma", 0.1, "--eot-samples", "4,1"], "error: eot-samples: expected ascending numbers without repeated"),
        (["--sigma", 0.1, "--num-samples", 0], "error: num-samples: expected an integer of at least 1, got 0"),
        (["--sigma", 0.1, "--alpha", 2], "error: alpha: expected a number in"),
        (["--sigma", 0.1, "--record", "--model", "resnet20-cni-w"], "error: model: expected the path of a checkpoint"),
        (["--sigma", 0.1, "--certify", "--noise", "uniform"], "error: noise: expected Gaussian noise on the input"),
        (
            ["--sigma", 0.1, "--certify", "--vote", "soft"],
            "error: vote: expected prediction, the only vote that can be certified",
        ),
    ],
)
def test_bad_options_are_one_line(run, checkpoint, arguments, message, capsys):
    assert run("worst-case", "--model", checkpoint(), *QUICK, *arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown.strip().splitlines()[-1]


def test_sigma_is_not_chosen_on_the_images_that_are_reported(run, checkpoint, capsys):
    assert run("worst-case", "--model", checkpoint(**chosen_on("cifar10 sample")), *QUICK) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line == "error: split: expected other images than those that sigma was chosen on, got cifar10 sample"


def test_options_of_worst_case_are_none_of_evaluate(run, capsys):
    for option in ("--certify", "--restarts", "--resubmissions", "--alpha"):
        assert run("evaluate", option, 1) == 2
        assert f"No such option: {option}" in capsys.readouterr().err


def test_the_forecast_names_both_ends_of_the_sweep():
    smoothing = SmoothingConfig(NoiseConfig(sigma_normalized=0.1))
    told = forecast(WorstCaseProtocol(smoothing), 1000, 10)
    assert told.startswith("Cost: at most ")
    assert "with 1 draw a gradient, and " in told
    assert "with 64 draws a gradient" in told
    assert forecast(WorstCaseProtocol(smoothing, eot_samples=(4,)), 1000, 10).count("forward") == 1
    certification = CertificationProtocol(selection_samples=100, num_samples=1000)
    assert forecast(WorstCaseProtocol(smoothing), 1000, 10, certification).endswith(
        "; 1,100,000 forward passes to certify"
    )


# One image, attacked as briefly as can be.
CERTIFY = [
    *("--images", 1, "--steps", 1, "--restarts", 1, "--eot-samples", 1, "--sweep-images", 1, "--queries", 2),
    *("--resubmissions", 1, "--sigma-normalized", 0.24, "--num-samples", 1, "--certify"),
]


@pytest.mark.slow
def test_certified_lines_stand_beside_the_empirical_ones(run, checkpoint, tmp_path, capsys):
    assert run("worst-case", "--model", checkpoint(), *CERTIFY, "--json", tmp_path / "rows.json") == 0
    shown = capsys.readouterr()
    assert "1,100 forward passes to certify" in shown.err
    lines = shown.out.splitlines()
    (title,) = (number for number, line in enumerate(lines) if line.strip() == "certified, L2")
    assert any(line.strip().startswith("worst case") for line in lines[:title])
    assert [line.split()[2] for line in lines[title + 1 : title + 5]] == ["0", "0.0314", "0.1", "1.74"]
    words = " ".join(shown.out.split())
    assert "CERTIFY abstains on" in words
    assert "eps = 8/255 requires r = 1.74." in words
    written = Result.load(tmp_path / "rows.json")
    certified = written.summary["certified"]
    assert [row["radius"] for row in certified] == [0.0, 8 / 255, 0.1, 8 / 255 * 3072**0.5]
    assert {row["images"] for row in certified} == {written.rows[-1]["images"]} == {1}
    assert {(row["sigma_normalized"], row["num_samples"]) for row in certified} == {(0.24, 1000)}


def test_what_cannot_be_certified_is_refused_before_the_attacks(run, checkpoint, tmp_path, capsys):
    options = ["--noise", "uniform", "--out", tmp_path / "run"]
    assert run("worst-case", "--model", checkpoint(), *CERTIFY, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: noise: expected Gaussian noise on the input, got Uniform")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(run, tmp_path):
    command = ["worst-case", *QUICK, "--num-samples", 2, "--runs", 2, "--precision", "float32"]
    assert run(*command, "--json", tmp_path / "one.json") == 0
    done = by_two(*command, "--json", tmp_path / "two.json")
    assert done.returncode == 0, done.stderr
    one, two = (Result.load(tmp_path / name) for name in ("one.json", "two.json"))
    assert two.rows == one.rows
    assert all(two.tensors[name].equal(tensor) for name, tensor in one.tensors.items())
    assert done.stdout.count("worst case") == 3  # two rows and the sentence on the gain: one process prints
    assert done.stderr.count("forward and") == 1
