"""docs/defences.md has every recipe, with the cost and the number of epochs that `smoothed recipes` states."""

import re
from pathlib import Path

from smoothed.training.cost import forward_equivalents
from smoothed.training.recipes import RECIPES

DOCS = Path(__file__).parents[2] / "docs"


def test_every_recipe_is_there_with_its_cost():
    page = (DOCS / "defences.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    stated = {cells[0].strip("`"): (int(cells[1]), int(cells[2])) for cells in rows}
    configs = {name: recipe.config() for name, recipe in RECIPES.items()}
    assert stated == {name: (forward_equivalents(config), config.epochs) for name, config in configs.items()}
    assert all(cells[3] for cells in rows)  # a claim, or that there is none
    assert len(rows) == len(stated)


def test_each_defence_has_one_equation():
    page = (DOCS / "defences.md").read_text(encoding="utf-8").partition("## Costs and claims")[0]
    defences = re.split(r"^\*\*", page, flags=re.MULTILINE)[1:]
    assert len(defences) > 15
    assert all(len(re.findall(r"^\$\$.*\$\$$", text, re.MULTILINE)) == 1 for text in defences)


def test_the_page_on_training_links_to_it():
    assert "](defences.md)" in (DOCS / "training.md").read_text(encoding="utf-8")
