"""The command as its users meet it: what it prints, what it writes, and how it fails."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from smoothed.checkpoint import describe, read_header, read_tensors, save, write_tensors
from smoothed.cli.main import main
from smoothed.injection import inject_preset
from smoothed.models import build
from smoothed.smoothing.config import NoiseConfig

# The command, which may not write files of more than 2,000 bytes.
LIMITED = """
import resource
from smoothed.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
main()
"""
PROMISED = {"model", "vote", "num_samples", "sigma", "attack", "eps", "clean", "clean_interval", "robust"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A ResNet-20 with noise inside that has learned nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("resnet20")
    injection = inject_preset(model, "pni-w-layer").to_json()
    header = describe("resnet20", model, injection, tuple("abcdefghij"))
    return save(tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors", model, header)


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["train"],
        ["recipes"],
        ["evaluate"],
        ["sweep"],
        ["attack"],
        ["worst-case"],
        ["check"],
        ["certify"],
        ["demo"],
        ["download"],
    ],
)
def test_help(run, command, capsys):
    assert run(*command, "--help") == 0
    assert "--help" in capsys.readouterr().out


def test_help_wraps_paragraphs_at_the_width_of_the_terminal(run, monkeypatch, capsys):
    """Lines of a docstring do not end where they end in the source, and no bracket is taken for markup."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    assert run("evaluate", "--help") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "each gradient; an EOT attack averages --eot-samples of them. Votes use draws" in lines
    assert run("train", "--help") == 0
    assert "imagefolder:PATH@SIZE" in capsys.readouterr().out


@pytest.mark.slow
def test_evaluate_prints_a_table_and_writes_rows(run, checkpoint, tmp_path, capsys):
    rows = tmp_path / "rows.json"
    options = ["--images", 8, "--steps", 1, "--num-samples", "1,3", "--runs", 2, "--sigma", "0,0.24", "--json", rows]
    assert run("evaluate", "--model", checkpoint, *options) == 0
    assert "one draw" in capsys.readouterr().out
    written = json.loads(rows.read_text())
    assert len(written) == 1 + 2 * 3 * 2
    assert all(set(row) >= PROMISED | {"robust_interval", "images"} for row in written)
    assert {row["sigma"] for row in written} == {0.0, 0.24}
    assert all(row["eps"] == 8 / 255 and row["images"] == 8 and row["runs"] == 2 for row in written)


@pytest.mark.parametrize("attack", ["epgd", "smoothadv", "fgsm", "apgd-dlr", "ddn", "square", "transfer"])
def test_evaluate_takes_each_attack(run, checkpoint, attack, tmp_path):
    options = ["--steps", 1, "--eot-samples", 2, "--num-samples", 1, "--votes", "soft", "--sigma", 0.1]
    options += ["--max-queries", 10, "--sees", "shares", "--json", tmp_path / "rows.json"]
    options += ["--source", checkpoint] if attack == "transfer" else []
    assert run("evaluate", "--model", checkpoint, "--attack", attack, "--images", 4, *options) == 0
    row = json.loads((tmp_path / "rows.json").read_text())[-1]
    assert row["norm"] == ("l2" if attack == "ddn" else "linf")
    assert (row["max_queries"], row["sees"]) == ((10, "shares") if attack == "square" else (None, None))
    assert row["sources"] == ([str(checkpoint)] if attack == "transfer" else [])


def test_what_an_attack_cannot_do_is_refused_at_once(run, checkpoint, capsys):
    assert run("evaluate", "--model", checkpoint, "--attack", "transfer", "--images", 2) == 2
    assert (
        "error: sources: expected at least one network on which to make the examples, got none"
        in capsys.readouterr().err
    )
    assert run("evaluate", "--model", checkpoint, "--attack", "square", "--sees", "labels", "--images", 2) == 2
    (line,) = capsys.readouterr().err.splitlines()  # and no bar above it
    assert line.startswith("error: sees: expected logits or shares, since square compares scores")
    assert run("evaluate", "--model", checkpoint, "--source", checkpoint, "--images", 2) == 2
    assert "error: source: expected --attack transfer beside it, got --attack pgd" in capsys.readouterr().err


def test_a_sigma_of_an_earlier_version_is_refused(run, checkpoint, tmp_path, capsys):
    tensors, header = read_tensors(checkpoint)
    smoothing = {"sigma": 0.24, "sigma_units": "normalized"}
    old = write_tensors(tmp_path / "old.safetensors", tensors, {**header, "smoothing": smoothing})
    assert run("evaluate", "--model", old, "--images", 2) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: checkpoint: expected smoothing with sigma and sigma_normalized, got sigma_units of")


@pytest.mark.slow
def test_demo_runs_on_the_bundled_checkpoint(run, tmp_path, capsys):
    rows, plot = tmp_path / "rows.json", tmp_path / "plot.png"
    assert run("demo", "--images", 10, "--json", rows, "--plot", plot) == 0
    shown = capsys.readouterr().out
    assert "Smoothing (prediction vote, 64 draws" in shown
    assert "Sigma was chosen on cifar10 validation images" in shown
    written = json.loads(rows.read_text())
    assert [row["num_samples"] for row in written] == [1, *[1, 4, 16, 64] * 3]
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--model", "nowhere"], "error: model: expected a checkpoint file or a bundled name"),
        (
            ["evaluate", "--votes", "hard"],
            "error: votes: expected all, or some of prediction, weighted, soft, got 'hard'",
        ),
        (["evaluate", "--sigma", "-0.1"], "error: sigma: expected a finite number of at least 0, got -0.1"),
        (
            ["evaluate", "--sigma", 0, "--sigma-normalized", 0],
            "error: sigma: expected either --sigma or --sigma-normal",
        ),
        (["evaluate", "--sigma", "much"], "error: sigma: expected numbers separated by commas, got 'much'"),
        (["evaluate", "--eps", "-8/255"], "error: eps: expected a finite number of at least 0, got -0.03"),
        (["evaluate", "--eps", "8/0"], "expected a number or a fraction such as 8/255, got 8/0"),
        (["evaluate", "--num-samples", "0"], "error: num_samples: expected an integer of at least 1, got 0"),
        (["evaluate", "--images", "0"], "error: images: expected 1 to 1000 (the size of cifar10 sample), got 0"),
        (["evaluate", "--images", "5000"], "error: images: expected 1 to 1000"),
        (["evaluate", "--attack", "nfgsm"], "error: attack: expected one of fgsm, pgd, epgd"),
        (["evaluate", "--attack", "magic"], "error: attack: expected one of fgsm"),
        (["evaluate", "--data", "nowhere"], "error: data: expected sample, cifar10, cifar100, or a folder"),
        (["evaluate", "--split", "validation"], "error: split: expected test with --data sample"),
        (["evaluate", "--tune"], "error: tune: expected --split validation, got --split test"),
        (["evaluate", "--colour"], "No such option"),
        (["evaluate", "--runs", "few"], "--runs"),
        (["frobnicate"], "No such command"),
        (["download", "mnist"], "error: name: expected one of cifar10, cifar100, got 'mnist'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, message, capsys):
    assert run(*arguments) == 2
    shown = capsys.readouterr().err
    line = shown.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert message in line
    assert "Traceback" not in shown


def test_a_folder_in_place_of_a_file_is_an_error(run, checkpoint, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    options = ["--images", 2, "--steps", 1, "--num-samples", 1, "--votes", "soft"]
    assert run("evaluate", "--model", checkpoint, *options, "--json", tmp_path / "taken" / "rows.json") == 2
    assert "could not be written" in capsys.readouterr().err


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_file(checkpoint, tmp_path):
    """A limit on the size of files stands for the full disk: the write fails half-way, as it would there."""
    rows = tmp_path / "rows.json"
    rows.write_text("old")
    options = ["--images", 2, "--steps", 1, "--num-samples", "1,2,3,4,5,6,7,8", "--sigma", "0.1"]
    command = [sys.executable, "-B", "-c", LIMITED, "evaluate", "--model", checkpoint, *options, "--json", rows]
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, shown = process.communicate()
    assert process.returncode == 2
    assert "could not be written (File too large)" in shown
    assert "Traceback" not in shown
    assert rows.read_text() == "old"
    assert os.listdir(tmp_path) == ["rows.json"]  # noqa: PTH208


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_one_line(checkpoint, tmp_path):
    out, rows = tmp_path / "run", tmp_path / "rows.json"
    command = [sys.executable, "-m", "smoothed", "evaluate", "--model", checkpoint, "--out", out, "--json", rows]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not out.exists():  # then there are 1,000 images to attack
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate()
    assert process.returncode == 130
    assert shown.strip().splitlines()[-1] == "interrupted"
    assert "Traceback" not in shown
    assert not rows.exists()


def test_record_writes_the_numbers_into_the_header(run, checkpoint, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(checkpoint.read_bytes())
    options = ["--images", 4, "--steps", 1, "--num-samples", "2", "--votes", "soft", "--sigma", "0.1", "--record"]
    assert run("evaluate", "--model", copy, *options) == 0
    assert [row["vote"] for row in read_header(copy)["results"]] == ["none", "soft"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "unit"), [("--sigma", "sigma"), ("--sigma-normalized", "sigma_normalized")], ids=["pixels", "normalized"]
)
def test_tune_chooses_on_held_out_images(run, checkpoint, tmp_path, full_data, capsys, option, unit):
    """What is stored is the very noise that was chosen, in whichever unit."""
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(checkpoint.read_bytes())
    options = ["--images", 6, "--steps", 1, "--num-samples", "2", "--votes", "prediction", option, "0.1,0.2"]
    assert run("evaluate", "--model", copy, "--data", full_data, "--split", "validation", *options, "--tune") == 0
    card = read_header(copy)["smoothing"]
    assert card["chosen_on"] == "cifar10 validation"
    assert [tried[unit] for tried in card["tried"]] == [0.1, 0.2]
    shown = capsys.readouterr().out
    assert f"The checkpoint now stores sigma {card['sigma']:.4g} (" in shown
    assert card[unit] in {0.1, 0.2}
    assert NoiseConfig.from_header(read_header(copy)) == NoiseConfig(**{unit: card[unit]})


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_leave_their_core_unless_the_user_says_otherwise(monkeypatch, before, after):
    monkeypatch.setenv("OMP_WAIT_POLICY", before or "")
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert os.environ["OMP_WAIT_POLICY"] == after
