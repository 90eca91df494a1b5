"""What a recipe is: a name, where it comes from, and the settings in which it differs from another."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from smoothed.errors import ArgumentError
from smoothed.training.config import TrainingConfig


@dataclass(frozen=True)
class Recipe:
    """A named `TrainingConfig`, short of data and seed.

    Attributes:
        name: for the command line.
        source: the paper it comes from.
        changes: what it changes, in a few words.
        settings: fields of `TrainingConfig` and their values.
    """

    name: str
    source: str
    changes: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def but(self, name: str, source: str, changes: str, **settings: Any) -> "Recipe":  # noqa: ANN401 - any field's
        """Another recipe, which shares all but `settings` with this one."""
        return Recipe(name, source, changes, {**self.settings, **settings})

    def config(self, **settings: Any) -> TrainingConfig:  # noqa: ANN401 - any field's
        """The whole configuration, with `settings` in place of the recipe's own."""
        return TrainingConfig(**{**self.settings, "recipe": self.name, **settings})


def collect(*families: Iterable[Recipe]) -> dict[str, Recipe]:
    """The recipes by name.

    Raises:
        ArgumentError: two of one name.
    """
    recipes: dict[str, Recipe] = {}
    for family in families:
        for recipe in family:
            if recipe.name in recipes:
                raise ArgumentError("recipes", "one recipe of a name", recipe.name)
            recipes[recipe.name] = recipe
    return recipes
