"""Definition of a recipe: a named set of training settings with its source."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from smoothed.errors import ArgumentError
from smoothed.training.config import TrainingConfig


@dataclass(frozen=True)
class Recipe:
    """A named training configuration, except for data and seed.

    Attributes:
        name: name on the command line.
        source: paper that introduced the method.
        changes: short description of the settings.
        settings: values of fields of `TrainingConfig`; the other fields keep their defaults.
    """

    name: str
    source: str
    changes: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def variant(self, name: str, source: str, changes: str, **settings: Any) -> "Recipe":  # noqa: ANN401 - any field's
        """Create another recipe that differs from this one in `settings`."""
        return Recipe(name, source, changes, {**self.settings, **settings})

    def config(self, **settings: Any) -> TrainingConfig:  # noqa: ANN401 - any field's
        """Create the training configuration; `settings` override those of the recipe."""
        return TrainingConfig(**{**self.settings, "recipe": self.name, **settings})


def collect(*families: Iterable[Recipe]) -> dict[str, Recipe]:
    """Merge recipes into a dict by name.

    Raises:
        ArgumentError: two recipes have the same name.
    """
    recipes: dict[str, Recipe] = {}
    for family in families:
        for recipe in family:
            if recipe.name in recipes:
                raise ArgumentError("recipes", "unique names", f"two recipes named {recipe.name}")
            recipes[recipe.name] = recipe
    return recipes
