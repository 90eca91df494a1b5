"""Configuration of a run from a recipe in any form: a name, an object, or the user's own function."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from smoothed.errors import ArgumentError, SmoothedError
from smoothed.training.config import REMOVE_NOISE, TrainingConfig
from smoothed.training.recipes import RECIPES, Recipe
from smoothed.utils.checks import check_choice
from smoothed.utils.imports import error_summary, import_object, is_object_name
from smoothed.utils.names import name_of

AnyRecipe = str | Recipe | TrainingConfig | Callable[[], "TrainingConfig | Recipe"]
"""A key of `RECIPES`, `package.module:name`, a recipe, a configuration, or a function that returns one of the two."""

OTHER_NAMES = {"steps": "attack_steps", "learning_rate": "lr", "noise": "injection", "model": "architecture"}
"""Settings by other names that users may know them by, such as those of the command line."""


def configured(recipe: AnyRecipe, settings: Mapping[str, Any], *, has_noise: bool = False) -> TrainingConfig:
    """Return the configuration of a recipe with some settings of the user's in place of its own.

    Input noise in one of its two units replaces the recipe's noise in the other unit. `injection="none"` beside a
    network that may have noise means that this noise is removed.

    Args:
        recipe: see `AnyRecipe`.
        settings: values by names of fields of `TrainingConfig`.
        has_noise: whether the user's own network has noise inside.

    Raises:
        ArgumentError: the recipe or a setting is unknown, or a setting is invalid.
    """
    known = [field.name for field in fields(TrainingConfig)]
    for name in settings:
        if name not in known:
            similar = [OTHER_NAMES[name]] if name in OTHER_NAMES else difflib.get_close_matches(name, known)
            hint = f"did you mean {' or '.join(similar)}?" if similar else ""
            raise ArgumentError(name, "an argument of train or a setting of TrainingConfig", f"the name {name}", hint)
    changes = dict(settings)
    if isinstance(changes.get("start"), Path):
        changes["start"] = str(changes["start"])
    if "input_sigma" in changes and "input_sigma_normalized" not in changes:
        changes["input_sigma_normalized"] = 0.0
    elif "input_sigma_normalized" in changes and "input_sigma" not in changes:
        changes["input_sigma"] = 0.0
    base = _recipe_object(recipe)
    start = changes["start"] if "start" in changes else _start(base)
    if changes.get("injection") == "none" and (has_noise or start is not None):
        changes["injection"] = REMOVE_NOISE
    return base.config(**changes) if isinstance(base, Recipe) else replace(base, **changes)


def _start(base: Recipe | TrainingConfig) -> object:
    return base.settings.get("start") if isinstance(base, Recipe) else base.start


def _recipe_object(recipe: object) -> Recipe | TrainingConfig:
    named = recipe
    if isinstance(recipe, str):
        if recipe in RECIPES or not is_object_name(recipe):
            return RECIPES[check_choice(recipe, RECIPES, "recipe")]
        named = import_object(recipe, "recipe")
    found = named
    if callable(named):
        try:
            found = named()
        except SmoothedError:
            raise
        except Exception as error:  # the user's code may raise any error
            expected = "a function without arguments that returns a TrainingConfig"
            raise ArgumentError(
                "recipe", expected, f"{name_of(recipe)}, which raises {error_summary(error)}"
            ) from error
    if isinstance(found, Recipe):
        return found
    if isinstance(found, TrainingConfig):
        # The label says where the settings come from.
        return replace(found, recipe=name_of(recipe)) if callable(named) or isinstance(recipe, str) else found
    expected = "the name of a recipe, a Recipe, a TrainingConfig, or a function that returns one"
    got = f"an object of type {type(found).__name__}" + (f" from {name_of(recipe)}" if callable(named) else "")
    raise ArgumentError("recipe", expected, got)
