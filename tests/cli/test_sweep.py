"""`smoothed sweep` as its users meet it."""

import re
from pathlib import Path

import pytest

from launching import by_two
from smoothed import Result

FEW = ["--images", 6, "--steps", 1, "--sigma", "0:0.2:0.1", "--num-samples", "1,2,..,3"]


@pytest.mark.slow
def test_a_grid_sentences_a_plot_and_cells(run, checkpoint, tmp_path, capsys):
    path, plot = tmp_path / "cells.json", tmp_path / "plot.png"
    assert run("sweep", "--model", checkpoint, *FEW, "--json", path, "--plot", plot) == 0
    shown = capsys.readouterr()
    assert "accuracy in %, PGD, L-inf 8/255" in shown.out
    assert "Best setting on these 6 images: sigma" in shown.out
    assert "can't tell which of the 3 sigmas is the best" in shown.out
    assert "warning: these are test images (cifar10 sample)" in shown.err
    assert f"plot written to {plot}" in shown.err
    assert plot.read_bytes().startswith(b"\x89PNG")
    result = Result.load(path)
    rows = result.rows
    # The right tensor, (kinds, sigmas, votes, Ms, runs, images), holds the outcomes of which each row is the mean.
    assert result.row(sigma=0.1, vote="soft", num_samples=3)["robust"] == pytest.approx(
        float(result.tensors["right"][1, 1, 2, 2].double().mean())
    )
    assert {(row["sigma"], row["vote"], row["num_samples"]) for row in rows} == {
        (sigma, vote, count)
        for sigma in (0, 0.1, 0.2)
        for vote in ("prediction", "weighted", "soft")
        for count in (1, 2, 3)
    }
    promised = {"model", "attack", "eps", "clean", "clean_interval", "robust", "robust_interval", "images"}
    assert all(promised <= set(row) for row in rows)


@pytest.mark.slow
def test_clean_images_alone_and_a_folder_to_continue_from(run, checkpoint, tmp_path, capsys):
    options = ["sweep", "--model", checkpoint, *FEW, "--attack", "none", "--votes", "soft", "--out", tmp_path / "run"]
    assert run(*options, "--json", tmp_path / "first.json") == 0
    assert "soft vote: accuracy in %, clean images" in capsys.readouterr().out
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    assert len(kept) == 4  # a batch a sigma and the configuration
    assert run(*options, "--json", tmp_path / "again.json") == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == kept
    first, again = (Result.load(tmp_path / name) for name in ("first.json", "again.json"))
    assert again.rows == first.rows
    assert first.summary["criterion"] == "clean"
    assert all(row["attack"] == "none" and row["robust"] is None for row in first.rows)
    capsys.readouterr()
    assert run(*options, "--seed", 1) == 2
    assert "error: out: expected an evaluation with seed = 1, got one with 0 in " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere"], "error: model: expected a bundled name (resnet20-cni-w), the path"),
        (["--sigma", "0:0.5:0.2"], "error: sigma: expected a range whose steps reach its end"),
        (["--sigma", "-0.1"], "error: sigma: expected a finite number of at least 0, got -0.1"),
        (["--sigma", "0.1,0.1"], "error: sigma: expected no repeated values, got 0.1,0.1"),
        (["--sigma", "0.1", "--sigma-normalized", "0.1"], "error: sigma: expected either --sigma or --sigma-norm"),
        (["--num-samples", "1,2,..,8"], "error: num-samples: expected three numbers before .."),
        (["--num-samples", "0"], "error: num-samples: expected an integer of at least 1, got 0"),
        (["--votes", "hard"], "error: votes: expected all, or some of prediction, weighted, soft, got 'hard'"),
        (["--attack", "magic"], "error: attack: expected one of fgsm"),
        (["--source", "x"], "error: source: expected --attack transfer beside it, got --attack pgd"),
        (["--images", "0"], "error: images: expected 1 to 1000"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, message, capsys):
    assert run("sweep", *arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown.strip().splitlines()[-1]
    assert "Traceback" not in shown


def test_the_example_of_the_docs_runs(capsys):
    text = Path(__file__).parents[2].joinpath("docs", "sweep.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, "sweep.md", "exec"), {})  # noqa: S102
    assert "Best setting on these 10 images" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_give_the_sweep_of_one(run, tmp_path):
    command = ["sweep", "--sigma-normalized", "0,0.1,0.24", "--num-samples", "1,3", "--attack", "none", "--images", 4]
    assert run(*command, "--json", tmp_path / "one.json") == 0
    done = by_two(*command, "--json", tmp_path / "two.json", "--out", tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    one, two = (Result.load(tmp_path / name) for name in ("one.json", "two.json"))
    assert two.rows == one.rows
    assert two.tensors["right"].equal(one.tensors["right"])
    assert done.stderr.count("warning: ") == 1  # on choosing on test images: one of them speaks
