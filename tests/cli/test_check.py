"""`smoothed check` as its users meet it: the table, the last sentence, the file, and what it refuses."""

import pytest

from smoothed import Result

QUICK = ["--images", 6, "--steps", 1, "--num-samples", 2, "--eot-samples", 1]


@pytest.mark.slow
def test_prints_a_table_and_writes_the_findings(run, checkpoint, tmp_path, capsys):
    path = tmp_path / "findings.json"
    options = ["--sigma-normalized", 0.24, "--eps", "4/255", "--seed", 3, "--json", path]
    assert run("check", "--model", checkpoint, *QUICK, *options) == 0  # whatever the verdict: six images prove nothing
    shown = capsys.readouterr().out
    result = Result.load(path)
    assert len(result.rows) == 12
    assert {finding["verdict"] for finding in result.rows} <= {"pass", "suspicious", "unclear"}
    setting = result.setting
    assert (setting["eps"], setting["steps"], setting["num_samples"], result.data["images"]) == (4 / 255, 1, 2, 6)
    assert (setting["sigma_normalized"], setting["noise"], setting["seed"]) == (0.24, "gaussian", 3)
    assert shown.strip().splitlines()[-1] == result.summary["sentence"]
    words = " ".join(shown.replace("│", " ").split())
    assert "6 images" in words
    assert "PGD-1 over 1 draws, L-inf 4/255" not in words
    assert "PGD-1 over one draw, L-inf 4/255" in words
    assert "gradients do not vanish" in words


@pytest.mark.slow
def test_a_folder_is_continued_from(run, checkpoint, tmp_path, capsys):
    command = ["check", "--model", checkpoint, *QUICK, "--sigma", 0.24, "--out", tmp_path / "run"]
    assert run(*command, "--json", tmp_path / "first.json") == 0
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    assert run(*command, "--json", tmp_path / "again.json") == 0
    assert Result.load(tmp_path / "again.json").rows == Result.load(tmp_path / "first.json").rows
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == kept
    capsys.readouterr()
    assert run(*command, "--eps", "4/255") == 2
    assert "error: out: expected an evaluation with eps = 0.015" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nowhere"], "error: model: expected a bundled name (resnet20-cni-w), the path"),
        (["--vote", "hard"], "error: vote: expected one of prediction, weighted, soft, got 'hard'"),
        (["--noise", "pink"], "error: noise: expected one of gaussian, uniform, laplace, got 'pink'"),
        (["--sigma", 0.06, "--sigma-normalized", 0.24], "error: sigma: expected either --sigma or --sigma-normalized"),
        (["--eps", "0"], "error: eps: expected a radius above 0"),
        (["--steps", "0"], "error: steps: expected an integer of at least 1"),
        (["--num-samples", "0"], "error: num-samples: expected an integer of at least 1"),
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
