"""`smoothed report`, `smoothed compare` and `--report` as their users meet them."""

import sys

import pytest

from made_results import Page, evaluated

FEW = ["--images", 4, "--seed", 1]
SUITE = ["--steps", 1, "--restarts", 1, "--eot-samples", 1, "--queries", 2, "--resubmissions", "1,2"]

TRAINED = """
import torch
from torch import nn


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 2))


def data():
    return torch.rand(24, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 2
"""


@pytest.fixture
def stored(tmp_path):
    """The files of two results on the same images and of one on others."""
    made = {"a": evaluated(name="a"), "b": evaluated(name="b", seed=3), "other": evaluated(20)}
    return {name: result.save(tmp_path / f"{name}.json") for name, result in made.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "--steps", 1, "--num-samples", "1,2"],
        ["sweep", "--steps", 1, "--num-samples", "1,2", "--sigma", "0,0.1"],
        ["worst-case", *SUITE],
        ["check", "--steps", 1],
        ["certify", "--num-samples", 20, "--selection-samples", 2],
        ["attack", "--attack", "fgsm", "--examples", "examples.safetensors"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_writes_a_page(run, checkpoint, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    sigma = [] if "--sigma" in command else ["--sigma", 0.1]
    assert run(*command, "--model", checkpoint, *FEW, *sigma, "--report", "page.html") == 0
    assert "report written to page.html" in capsys.readouterr().err
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert dict(zip(page.all("dt"), page.all("dd"), strict=True))["command"].endswith("--report page.html")
    if command[0] == "attack":
        run("evaluate", "--examples", "examples.safetensors", "--model", checkpoint, "--report", "again.html")
        assert "saved examples of fgsm" in Page((tmp_path / "again.html").read_text(encoding="utf-8")).text


@pytest.mark.slow
def test_the_demo_writes_a_page(run, tmp_path):
    page = tmp_path / "demo.html"
    assert run("demo", "--images", 4, "--plot", tmp_path / "demo.png", "--report", page) == 0
    assert len(Page(page.read_text(encoding="utf-8")).data["images"]) == 4


def test_one_file_and_two_files(run, stored, tmp_path, capsys):
    assert run("report", stored["a"], "--out", tmp_path / "one.html") == 0
    assert capsys.readouterr().err == f"report written to {tmp_path / 'one.html'}\n"
    assert len(Page((tmp_path / "one.html").read_text(encoding="utf-8")).data["results"]) == 1
    assert run("report", stored["a"], stored["b"], "--out", tmp_path / "two.html") == 0
    assert len(Page((tmp_path / "two.html").read_text(encoding="utf-8")).data["results"]) == 2


def test_more_files_are_listed_whatever_their_images(run, stored, tmp_path, capsys):
    (tmp_path / "twin").mkdir()
    twin = evaluated(5, name="twin").save(tmp_path / "twin" / "b.json")
    out = tmp_path / "many.html"
    assert run("report", *stored.values(), twin, "--out", out) == 0
    assert capsys.readouterr().err == f"report written to {out}\n"
    page = Page(out.read_text(encoding="utf-8"))
    assert page.all("h1") == ["4 results"]
    names = ["a", str(stored["b"]), "other", str(twin)]
    assert [text for text in page.all("a") if text in names] == names


def test_compare_prints_the_paired_tests_and_writes_a_page(run, stored, tmp_path, capsys):
    assert run("compare", stored["a"], stored["b"], "--report", tmp_path / "two.html") == 0
    printed = capsys.readouterr().out.splitlines()
    page = Page((tmp_path / "two.html").read_text(encoding="utf-8"))
    assert printed[0] == page.all("p", class_="verdict")[0]
    assert len(printed) == 1 + 3 * 5  # the vote that is shown first, the base, and the other votes and Ms
    assert printed[1] == "prediction vote, sigma 0.25 (1 normalised), M = 8:"
    assert printed[2].startswith("  clean images: ")
    assert "points (paired 95 % interval" in printed[2]


def test_compare_of_chosen_rows(run, stored, tmp_path, capsys):
    options = ["--vote", "none,soft", "--num-samples", "1,8", "--report", tmp_path / "two.html"]
    assert run("compare", stored["a"], stored["b"], *options) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1 + 3
    name = "first: one draw, no input noise, M = 1; second: soft vote, sigma 0.25 (1 normalised), M = 8"
    assert printed[1] == f"{name}:"
    page = Page((tmp_path / "two.html").read_text(encoding="utf-8"))
    assert page.all("p", class_="verdict")[0] == printed[0]
    assert page.all("th", scope="row")[:2] == [name, name]
    assert run("compare", stored["a"], stored["a"], "--vote", "soft", "--sigma", "0.25", "--num-samples", "1") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "soft vote, sigma 0.25 (1 normalised), M = 1:"
    options = ["--vote", "one draw,soft", "--sigma-normalized", "0,1"]
    assert run("compare", stored["a"], stored["b"], *options) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"{name}:"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["compare", "a", "b", "--sigma", "0.3"],
            "error: sigma: expected a row of the first result: none (one draw, no",
        ),
        (["compare", "a", "b", "--vote", "x,soft"], "soft vote, sigma 0.25 (1 normalised), M = 1, 8, got vote x"),
        (
            ["compare", "a", "b", "--vote", "a,b,c"],
            "error: vote: expected one value for both results, or two separated",
        ),
        (
            ["compare", "a", "b", "--sigma-normalized", "0.25"],
            "error: sigma-normalized: expected a sigma of the first result in the paper's unit (0, 1), got 0.25",
        ),
        (
            ["compare", "a", "b", "--sigma", "0.25", "--sigma-normalized", "1"],
            "error: sigma: expected one of --sigma and --sigma-normalized, got both",
        ),
        (["compare", "a", "b", "--num-samples", "x"], "error: num-samples: expected whole numbers separated by commas"),
        (["report", "a", "other"], "error: results: expected two results on the same images, got 40 images of random"),
        (["compare", "a", "other"], "error: results: expected two results on the same images, got 40 images of random"),
        (["compare", "a"], "error: results: expected two files, got 1"),
        (["report", "nothing"], "nothing.json: could not be read"),
        (
            ["report", "a", "--out", "page.json"],
            "error: out: expected a file name that ends in .html or .htm, got page",
        ),
        (["compare", "a", "b", "--report", "page"], "error: report: expected a file name that ends in .html or .htm"),
        (["report"], "error: Missing argument"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(run, stored, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    names = {*stored, "nothing"}
    before = sorted(tmp_path.iterdir())
    assert run(*(f"{each}.json" if each in names else each for each in arguments)) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_page_of_another_suffix_is_refused_before_any_work(run, capsys):
    assert run("evaluate", "--images", 2, "--report", "page.json") == 2
    assert "error: report: expected a file name that ends in .html or .htm, got page.json" in capsys.readouterr().err


def test_a_page_and_a_plot_of_one_name_are_refused(run, tmp_path, capsys):
    page = tmp_path / "same.html"
    assert run("evaluate", "--images", 2, "--json", page, "--report", page) == 2
    assert "twice" in capsys.readouterr().err


@pytest.mark.slow
def test_training_writes_a_page(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trained_here.py").write_text(TRAINED)
    options = ["--architecture", "trained_here:network", "--data", "trained_here:data", "--augmentation", "none"]
    options += ["--recipe", "nfgsm", "--epochs", 2, "--batch-size", 8, "--out", "run", "--report", "page.html"]
    assert run("train", *options) == 0
    assert "report written to page.html" in capsys.readouterr().err
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "Validation accuracy, one forward pass per image" in page.all("figcaption")
    sys.modules.pop("trained_here")
