"""The examples of README and of the pages in docs run as they stand, and their commands are valid."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import typer

from smoothed.cli.main import build_app, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# The libraries of docs/other-libraries.md are installed for tests/peers alone.
WITH_PYTHON = [path for path in PAGES if "```python\n" in path.read_text() and path.name != "other-libraries.md"]
QUICK = ("sweep.md", "training.md")


def name(path):
    return str(path.relative_to(ROOT))


def examples(path):
    """The Python blocks of a page, and its modules by the names of their files, which are their first comments."""
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    modules = {match[1]: block for block in blocks if (match := re.match(r"# (\w+\.py)\n", block))}
    return [block for block in blocks if block not in modules.values()], modules


def commands(path):
    """The commands of a page, in indented and in fenced blocks, without the continuations and comments of a shell."""
    text = path.read_text().replace("\\\n", " ")
    lines = re.findall(r"^(?:    )?(smoothed .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.fixture
def in_folder_of(tmp_path, monkeypatch):
    """A function that goes to a folder with the modules of a page, which are forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def enter(path):
        for file, text in examples(path)[1].items():
            tmp_path.joinpath(file).write_text(text)
            written.append(Path(file).stem)

    yield enter
    for module in written:
        sys.modules.pop(module, None)


def run_examples(path):
    """Run the Python blocks of a page one after the other, and return their names."""
    names = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for number, block in enumerate(examples(path)[0]):
            exec(compile(block, f"{path.name}, block {number}", "exec"), names)  # noqa: S102
    return names


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=name(p), marks=[pytest.mark.slow] * (p.name not in QUICK)) for p in WITH_PYTHON]
)
def test_examples_run(path, in_folder_of, capsys):
    in_folder_of(path)
    names = run_examples(path)
    printed = capsys.readouterr().out
    if path.name == "README.md":
        assert len(examples(path)[0][0].strip().splitlines()) <= 12
        assert "noise on 2 weights and activations" in printed
    if path.name == "inference.md":
        tally = names["quick"].tally(names["images"], stop=names["quick"].stop)["prediction"][512]
        assert tally.num_samples.min() < 100
    if path.name == "your-model.md":
        assert names["adversarial"].shape == (4, 3, 32, 32)
        assert {row["attack"] for row in names["result"].rows} == {"pgd"}
        assert Path("result.json").is_file()
        assert Path("accuracy.pdf").read_bytes()[:5] == b"%PDF-"


@pytest.mark.parametrize("path", [pytest.param(path, id=name(path)) for path in PAGES if commands(path)])
def test_commands_are_valid(path):
    """Each command exists, has the options of the page, and can read their values."""
    group = typer.main.get_command(build_app())
    for command, *arguments in commands(path):
        assert command in group.commands
        group.commands[command].make_context(command, arguments).close()


@pytest.mark.slow
def test_commands_with_a_model_of_ones_own_run(in_folder_of, capsys):
    path = ROOT / "docs" / "how-to" / "your-model.md"
    in_folder_of(path)
    torch.save(_network().state_dict(), "weights.pth")
    for arguments in commands(path):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0, (arguments, capsys.readouterr().err)


def _network():
    from mine import network  # the module that the page shows

    return network()
