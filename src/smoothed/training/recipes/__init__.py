"""Recipes: named training configurations. A file that defines further recipes is added to `RECIPES` here."""

from smoothed.training.recipes import baselines, fast, other_defences, paper
from smoothed.training.recipes.recipe import Recipe, collect

RECIPES: dict[str, Recipe] = collect(baselines.RECIPES, paper.RECIPES, other_defences.RECIPES, fast.RECIPES)

__all__ = ["RECIPES", "Recipe", "collect"]
