"""`smoothed paper`, without the rest of the command."""

import json

import pytest
from typer.testing import CliRunner

from smoothed.cli.paper import paper_app
from smoothed.errors import ArgumentError
from smoothed.paper import cost
from smoothed.paper.catalog import DECLARATIONS


@pytest.fixture
def paper():
    """A function from arguments to what the command printed; errors are raised."""

    def run(*arguments):
        app = paper_app(lambda command: command, lambda text: text)
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        return result.output

    return run


@pytest.fixture
def known_times(monkeypatch):
    """A machine that takes a second for 1,000 forward passes and for 500 gradients."""
    monkeypatch.setattr(cost, "probe", lambda names: dict.fromkeys(names, cost.PassTimes(0.001, 0.002)))


def test_run_and_show(paper, tmp_path):
    out = tmp_path / "run"
    printed = paper("run", "appendix-a", "--schedule", "tiny", "--out", out)
    assert "1 of 1 steps are done" in printed
    assert "appendix-a" in printed
    printed = paper("show", "appendix-a", "--out", out)
    assert "Objective of a sample (eq. A.26)" in printed
    assert "## appendix-a" in (out / "pages/README.md").read_text()
    assert "undecided" not in printed
    printed = paper("show", "table-3a", "--out", out)
    assert "Claims: 0 hold, 0 do not hold, 1 undecided." in printed
    assert f"`smoothed paper run table-3a --schedule tiny --out {out}`" in printed


def test_without_training_and_without_networks_nothing_is_done(paper, tmp_path):
    options = ("--schedule", "tiny", "--out", tmp_path, "--zoo", tmp_path / "zoo", "--no-training")
    printed = " ".join(paper("run", "table-1", *options).split())
    assert printed.startswith(
        f"No evaluation is possible with the finished networks in {tmp_path} and {tmp_path / 'zoo'}."
    )
    assert not (tmp_path / "networks").exists()


@pytest.mark.usefixtures("known_times")
def test_list(paper, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without the zoo of the checkout
    printed = paper("list", "--schedule", "cpu", "--json", tmp_path / "list.json")
    assert all(name in printed for name in DECLARATIONS)
    values = json.loads((tmp_path / "list.json").read_text())
    by_name = {entry["name"]: entry for entry in values["declarations"]}
    assert by_name["table-3a"]["networks"] == ["cni-w", "cni-w-source"]
    assert by_name["table-2a"]["left_out"][0] == "at-wide"
    assert by_name["appendix-a"]["hours"] == {"training": 0, "evaluation": 0.0}
    # 45,000 images, 25 epochs of 1 gradient (20 epochs) or 7, so 4 passes on average, rounded; two backward passes to
    # the weights; and validation.
    epoch = 45_000 * (4 + 2 * 3) * 0.001 + 5_000 * 0.001 + 1_000 * 7 * 0.002
    assert by_name["table-3a"]["hours"]["training"] == pytest.approx(2 * 25 * epoch / 3600)
    # 1,000 images, five runs, 7 gradients and 8 draws on both kinds of images; 8 draws a gradient in two runs.
    draws = 2 * 8 * 0.001
    seconds = 5000 * (7 * 0.002 + draws) + 5000 * (56 * 0.002 + draws)
    assert by_name["table-3a"]["hours"]["evaluation"] == pytest.approx(seconds / 3600)
    whole = by_name["all"]["hours"]["training"]
    assert whole < sum(entry["hours"]["training"] for entry in by_name.values()) - whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "tabel-1", "--out", "x"), "did you mean table-1"),
        (("run", "--schedule", "gpu", "--out", "x"), "schedule: expected one of full, cpu, tiny, got 'gpu'"),
        (("show", "figure-9", "--out", "x"), "names: expected .*did you mean figure-"),
        (("show", "--out", "x"), "out: expected the folder of a run"),
        (("show", "--out", "x", "--report", "x.json"), "report: expected a file name that ends in .html"),
        (("list", "--schedule", "cpus"), "did you mean cpu"),
    ],
)
def test_refusals(paper, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=message):
        paper(*arguments)


@pytest.mark.parametrize("command", ["list", "run", "show"])
def test_help_fits_a_narrow_terminal(paper, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    printed = paper(command, "--help")
    assert max(map(len, printed.splitlines())) <= 80
    assert f"smoothed paper {command}" in printed


@pytest.mark.slow
def test_the_probe_times_both_kinds_of_passes():
    (times,) = cost.probe(["resnet20"]).values()
    assert 0 < times.forward < times.gradient < 1
