"""The command as its users meet it: what it prints, what it writes, and how it fails."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
import torch
import typer

from quick import first
from smoothed import Result
from smoothed.checkpoint import read_header, read_tensors, write_tensors
from smoothed.cli.main import build_app, main
from smoothed.smoothing.config import NoiseConfig
from smoothed.utils.devices import best_device

# The command, which may not write files of more than 2,000 bytes.
LIMITED = """
import resource
from smoothed.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
main()
"""
PROMISED = {"model", "vote", "num_samples", "sigma", "attack", "eps", "clean", "clean_interval", "robust"}


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
        ["report"],
        ["compare"],
    ],
)
def test_help(run, command, capsys):
    assert run(*command, "--help") == 0
    assert "--help" in capsys.readouterr().out


COMMANDS = [
    *("attack", "certify", "check", "compare", "demo", "download", "evaluate", "recipes", "report", "sweep", "train"),
    "worst-case",
]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_80_columns(run, monkeypatch, capsys, command):
    """No line is wider, no option is cut, and examples have lines of their own."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run(*command.split(), "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    app = typer.main.get_command(build_app())
    options = (app.commands[command] if command else app).params
    shown = {word for line in lines for word in line.replace("│", " ").split()[:3]}
    assert {name for option in options for name in option.opts if name.startswith("--")} <= shown
    if command not in {"", "recipes", "train"}:
        assert 1 <= sum(line.strip().startswith(f"smoothed {command}") for line in lines) <= 2


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
    result = Result.load(rows)
    written = result.rows
    assert len(written) == 1 + 2 * 3 * 2
    # The accuracy of each row is the mean of the outcomes of its images, over both runs.
    for number, row in enumerate(written):
        assert row["clean"] == pytest.approx(float(result.tensors["clean.right"][number].double().mean()))
        assert row["robust"] == pytest.approx(float(result.tensors["robust.right"][number].double().mean()))
    assert result.provenance["command"].startswith(f"smoothed evaluate --model {checkpoint} --images 8 ")
    assert all(set(row) >= PROMISED | {"robust_interval", "images"} for row in written)
    assert {row["sigma"] for row in written} == {0.0, 0.24}
    assert all(row["eps"] == 8 / 255 and row["images"] == 8 and row["runs"] == 2 for row in written)


@pytest.mark.parametrize("attack", first(3, ["epgd", "ddn", "transfer", "smoothadv", "fgsm", "apgd-dlr", "square"]))
def test_evaluate_takes_each_attack(run, checkpoint, attack, tmp_path):
    options = ["--steps", 1, "--eot-samples", 2, "--num-samples", 1, "--votes", "soft", "--sigma", 0.1]
    options += ["--max-queries", 10, "--sees", "shares", "--json", tmp_path / "rows.json"]
    options += ["--source", checkpoint] if attack == "transfer" else []
    assert run("evaluate", "--model", checkpoint, "--attack", attack, "--images", 4, *options) == 0
    row = Result.load(tmp_path / "rows.json")[-1]
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
    rows, plot = tmp_path / "rows.json", tmp_path / "plot.pdf"
    assert run("demo", "--images", 10, "--json", rows, "--plot", plot) == 0
    shown = capsys.readouterr().out
    result = Result.load(rows)
    (gain,) = (c for c in result.comparisons if c.name.startswith("prediction vote, M = 64") and c.images == "PGD-7")
    # The gain is the mean difference of the outcomes of each image between the vote and one draw.
    before, after = (result.tensors["robust.right"][row, 0].double() for row in (0, 4))
    assert gain.gain == pytest.approx(float((after - before).mean()))
    low, high = (f"{100 * bound:+.1f}" for bound in gain.interval)
    assert f"{100 * gain.gain:+.1f} points under PGD-7 (paired 95 % interval {low} to {high}" in shown
    assert "Sigma was chosen on cifar10 validation images" in shown
    assert [row["num_samples"] for row in result.rows] == [1, *[1, 4, 16, 64] * 3]
    assert plot.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["evaluate", "--model", "nowhere"],
            "error: model: expected a bundled name (resnet20-cni-w), the path of a checkpoint",
        ),
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
        (["evaluate", "--num-samples", "0"], "error: num-samples: expected an integer of at least 1, got 0"),
        (["evaluate", "--images", "0"], "error: images: expected 1 to 1000 (the size of cifar10 sample), got 0"),
        (["evaluate", "--images", "5000"], "error: images: expected 1 to 1000"),
        (["evaluate", "--attack", "nfgsm"], "error: attack: expected one of"),
        (["evaluate", "--eps", "8"], "expected a radius of at most 1 (pixel units of [0, 1]) in the L-inf norm, got 8"),
        (["evaluate", "--eps", "8"], "write 8/255 for 8 of 255 grey levels"),
        (["evaluate", "--attack", "cw-l0"], "error: eps: expected a number of pixels for an L0 attack, got none"),
        (["evaluate", "--attack", "bayes", "--max-queries", 5], "error: max-queries: expected at least 16 for bayes"),
        (
            ["evaluate", "--sigma", "0.1,1.2"],
            "error: sigma: expected a standard deviation of at most 1, got 1.2; it is",
        ),
        (
            ["evaluate", "--tune", "--split", "validation"],
            "error: model: expected the path of a checkpoint of your own",
        ),
        (["evaluate", "--examples", "nofile"], "examples: expected a file that `smoothed attack` wrote, got nofile"),
        (["evaluate", "--json", "a.safetensors"], "error: json: expected the name of a JSON file, got a.safetensors"),
        (["evaluate", "--plot", "a.doc"], "error: plot: expected a file name that ends in .eps, .jpg, .pdf, .png"),
        (["evaluate", "--plot", "a.png", "--sigma", "0,0.1"], "error: plot: expected one sigma beside it, got several"),
        (["evaluate", "--normalize", "0.5"], "error: normalize: expected MEAN/STD with one number for each channel"),
        (["evaluate", "--data-keys", "image"], "error: data-keys: expected two keys separated by a comma"),
        (["evaluate", "--model-args", "{"], "error: model-args: expected a dictionary, or a JSON object"),
        (["evaluate", "--weights", "nowhere"], "error: weights: expected a file, found none at nowhere"),
        (["evaluate", "--device", "gpu"], "error: device: expected auto, cpu, cuda, or cuda:N"),
        (["evaluate", "--device", "cuda:99"], "error: device: expected a device of this computer, got cuda:99"),
        (["evaluate", "--vote", "soft"], "error: No such option: --vote; did you mean --votes?"),
        (["evaluate", "--votes", "sotf"], "got 'sotf'; did you mean soft?"),
        (
            ["worst-case", "--votes", "soft"],
            "error: No such option: --votes; did you mean --vote, which takes one value?",
        ),
        (
            ["worst-case", "--sigma", "0.1", "--vote", "sotf"],
            "error: vote: expected one of prediction, weighted, soft, ",
        ),
        (["check", "--vote", "sotf"], "got 'sotf'; did you mean soft?"),
        (["evaluate", "--attack", "magic"], "error: attack: expected one of fgsm"),
        (["evaluate", "--data", "nowhere"], "error: data: expected sample, cifar10, cifar100, or a folder"),
        (["evaluate", "--split", "validation"], "error: split: expected test with the data set sample"),
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


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_leaves_results_and_errors(run, checkpoint, tmp_path, capsys, quiet):
    """Before the command or after it."""
    options = [
        "evaluate",
        "--model",
        checkpoint,
        "--images",
        2,
        "--attack",
        "none",
        "--num-samples",
        1,
        "--votes",
        "soft",
    ]
    options += ["--json", tmp_path / "rows.json", "--sigma", 0.6]
    lines = []
    for arguments in ([*(["--quiet"] if quiet else []), *options], [*options, *(["-q"] if quiet else [])]):
        assert run(*arguments) == 0
        shown = capsys.readouterr()
        assert "one draw" in shown.out
        lines.append(shown.err.strip().splitlines())
    assert all(line[0].startswith("warning: sigma 0.6 is more than half of the range of a pixel") for line in lines)
    expected = f"result written to {tmp_path / 'rows.json'} and {tmp_path / 'rows.safetensors'}"
    assert all((line[-1] == expected, len(line) > 1) == (not quiet, not quiet) for line in lines)


def test_the_device_may_stand_before_the_command_or_after_it(run, checkpoint, monkeypatch, capsys):
    """The network of the example is where the command said; best_device is as before afterwards."""
    seen = []

    def evaluated(network, *_, **options):  # noqa: ARG001
        seen.append((next(network.parameters()).device.type, best_device().type))
        raise KeyboardInterrupt

    monkeypatch.setattr("smoothed.api.evaluate.evaluate", evaluated)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # so the best device were a GPU
    for arguments in (["--device", "cpu", "evaluate"], ["evaluate", "--device", "cpu"]):
        assert run(*arguments, "--model", checkpoint, "--images", 2, "--sigma", 0) == 130
    assert seen == [("cpu", "cpu")] * 2
    assert best_device().type == "cuda"
    assert "interrupted" in capsys.readouterr().err


def test_smoothed_alone_prints_help_and_its_version(run, capsys):
    assert run() == 0
    assert "Usage: smoothed [OPTIONS] COMMAND" in capsys.readouterr().out
    assert run("--version") == 0
    assert capsys.readouterr().out == f"smoothed {version('smoothed')}\n"


def test_the_package_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["smoothed", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("smoothed", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"smoothed {version('smoothed')}\n"


def test_a_data_set_that_is_there_is_not_downloaded_again(run, tmp_path, capsys):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    assert run("download", "cifar10", "--to", tmp_path, "--json", tmp_path / "where.json") == 0
    assert capsys.readouterr().out == f"cifar10 is in {folder}\n"
    assert json.loads((tmp_path / "where.json").read_text()) == {"name": "cifar10", "folder": str(folder)}


def test_completion_can_be_shown(run, capsys, monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert run("--show-completion", "bash") == 0
    assert "_SMOOTHED_COMPLETE=complete_bash" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sigma", "told"),
    [
        ("0.24", "sigma 0.24 is the checkpoint's sigma in the paper's unit; in pixel units it is 0.06016: pass "),
        ("0.2401", "pass --sigma-normalized 0.24, or --sigma 0.06016"),
        ("0.25", None),
        ("0.0602", None),
    ],
)
def test_a_sigma_in_the_wrong_unit_is_warned_of(run, capsys, sigma, told):
    """0.06016 is 0.24 times the mean deviation of CIFAR-10, as the header of the bundled checkpoint says."""
    options = ["--images", 1, "--attack", "none", "--votes", "soft", "--num-samples", 1, "--quiet"]
    assert run("evaluate", "--sigma", sigma, *options) == 0
    shown = capsys.readouterr().err.strip()
    if told is None:
        assert shown == ""
    else:
        (line,) = shown.splitlines()
        assert line.startswith("warning: sigma ")
        assert told in line


def test_files_of_another_kind_are_not_overwritten(run, checkpoint, tmp_path, capsys):
    """The tensors of a result lie beside its JSON file: never on top of a checkpoint."""
    copy = tmp_path / "best.safetensors"
    copy.write_bytes(checkpoint.read_bytes())
    assert run("evaluate", "--model", copy, "--json", tmp_path / "best.json", "--images", 2) == 2
    assert "error: json: expected another name, because best.safetensors lies beside it" in capsys.readouterr().err
    assert run("attack", "--examples", tmp_path / "a.safetensors", "--json", tmp_path / "a.json") == 2
    assert f"error: json: expected files of different names, got {tmp_path / 'a.safetensors'} twice" in (
        capsys.readouterr().err
    )
    assert copy.read_bytes() == checkpoint.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


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
    # Coverage, where it is measured, could not write its own file either.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    _, shown = process.communicate()
    assert process.returncode == 2
    assert "could not be written" in shown
    assert "File too large" in shown
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


@pytest.mark.slow
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
