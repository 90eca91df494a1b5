"""Recipes: named compositions of injection, examples, loss and schedule. A new one is one short file, entered here."""

from smoothed.training.recipes import around, baselines, fast, paper
from smoothed.training.recipes.recipe import Recipe, collect

RECIPES: dict[str, Recipe] = collect(baselines.RECIPES, paper.RECIPES, around.RECIPES, fast.RECIPES)

__all__ = ["RECIPES", "Recipe", "collect"]
