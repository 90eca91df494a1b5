"""`smoothed recipes` lists what `smoothed train --recipe` takes."""

import json

import pytest

from smoothed.training.config import TrainingConfig
from smoothed.training.cost import forward_equivalents
from smoothed.training.recipes import RECIPES


def test_every_recipe_is_listed_with_what_it_costs(run, tmp_path, capsys):
    path = tmp_path / "recipes.json"
    assert run("recipes", "--json", path) == 0
    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("\u2502")[1:-1]] for line in shown.splitlines() if "\u2502" in line]
    table = {row[0]: row for row in rows if row[0]}
    written = {row["name"]: row for row in json.loads(path.read_text())}
    assert list(table) == list(written) == list(RECIPES)
    for name, recipe in RECIPES.items():
        config = TrainingConfig.from_json(written[name]["config"])
        assert config == recipe.config()
        assert config.recipe == name
        assert written[name]["forward_equivalents"] == forward_equivalents(config)
        assert table[name][3:] == [str(written[name]["forward_equivalents"]), str(config.epochs)]
        assert (written[name]["source"], written[name]["changes"]) == (recipe.source, recipe.changes)
    costs = {name: row["forward_equivalents"] for name, row in written.items()}
    # A step of PGD-7 is seven gradients of the inputs; then one of the weights, for both halves of the loss.
    assert (costs["natural"], costs["at"], costs["at-full"]) == (3, 7 * 2 + 2 * 3, 7 * 2 + 3)


@pytest.mark.parametrize("width", ["50", "200"])
def test_names_are_whole_however_narrow_the_terminal(run, monkeypatch, capsys, width):
    monkeypatch.setattr("smoothed.cli.console.output._width", int(width))
    assert run("recipes") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in RECIPES)


def test_a_list_that_can_not_be_written(run, tmp_path, capsys):
    assert run("recipes", "--json", tmp_path) == 2
    shown = capsys.readouterr()
    assert shown.err == f"error: {tmp_path}: could not be written (Is a directory)\n"
    assert not shown.out
