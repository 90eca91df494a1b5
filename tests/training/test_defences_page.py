"""docs/defences.md has every recipe, with its cost and its number of epochs."""

import re
from functools import cache
from pathlib import Path

from smoothed.injection import inject_preset
from smoothed.models import build
from smoothed.training.cost import forward_equivalents
from smoothed.training.recipes import RECIPES

DOCS = Path(__file__).parents[2] / "docs"


def test_every_recipe_is_there_with_its_cost():
    page = (DOCS / "defences.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    stated = {cells[0].strip("`"): tuple(int(cell.replace(",", "")) for cell in cells[1:4]) for cells in rows}
    configs = {name: recipe.config() for name, recipe in RECIPES.items()}
    assert stated == {
        name: (forward_equivalents(config), config.epochs, weights(config.architecture, config.injection))
        for name, config in configs.items()
    }
    assert all(float(cells[4]) > 0 for cells in rows)
    assert all(cells[5] for cells in rows)  # a claim, or that there is none
    assert len(rows) == len(stated)


@cache
def weights(architecture: str, injection: str) -> int:
    """Number of weights, with the learned strengths of the noise."""
    network = build(architecture)
    inject_preset(network, injection)
    return sum(parameter.numel() for parameter in network.parameters())


def test_each_defence_has_one_equation():
    page = (DOCS / "defences.md").read_text(encoding="utf-8").partition("## Costs and claims")[0]
    defences = re.split(r"^\*\*", page, flags=re.MULTILINE)[1:]
    assert len(defences) > 15
    assert all(len(re.findall(r"^\$\$.*\$\$$", text, re.MULTILINE)) == 1 for text in defences)


def test_the_page_on_training_links_to_it():
    assert "](defences.md)" in (DOCS / "training.md").read_text(encoding="utf-8")
