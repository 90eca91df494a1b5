"""Recipes of every form, and settings of the user's in their place."""

from dataclasses import replace
from pathlib import Path

import pytest

from refusing import check_refusals
from smoothed.training.config import TrainingConfig
from smoothed.training.configured import configured
from smoothed.training.recipes import RECIPES, Recipe

OWN = TrainingConfig(lr=0.3, injection="none")
MINE = Recipe("mine", "me", "other settings", {"epochs": 3})


def mine():
    return OWN


def as_recipe():
    return MINE


def failing():
    raise KeyError("colour")


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("mart", RECIPES["mart"].config()),
        (RECIPES["mart"], RECIPES["mart"].config()),
        (MINE, TrainingConfig(recipe="mine", epochs=3)),
        (OWN, OWN),
        (mine, replace(OWN, recipe="mine")),
        (lambda: OWN, replace(OWN, recipe="<lambda>")),
        (as_recipe, TrainingConfig(recipe="mine", epochs=3)),
        ("smoothed.training.recipes.baselines:AT", RECIPES["at"].config()),
        ("smoothed.training.config:TrainingConfig", TrainingConfig(recipe="smoothed.training.config:TrainingConfig")),
    ],
)
def test_forms_of_a_recipe(recipe, expected):
    assert configured(recipe, {}) == expected
    assert configured(recipe, {"lr": 0.7}) == replace(expected, lr=0.7)


@pytest.mark.parametrize(
    ("recipe", "settings", "has_noise", "expected"),
    [
        ("at", {"start": Path("a"), "injection": "none"}, False, {"start": "a", "injection": "remove"}),
        ("at", {"start": "a"}, False, {"start": "a", "injection": "none"}),
        ("cni-w", {"injection": "none"}, False, {"injection": "none"}),
        (replace(OWN, architecture="custom"), {"injection": "none"}, True, {"injection": "remove"}),
        (TrainingConfig(start="a"), {"injection": "none"}, False, {"injection": "remove"}),
        ("gaussian", {"input_sigma_normalized": 0.1}, False, {"input_sigma": 0.0, "input_sigma_normalized": 0.1}),
        ("cni-i+w", {"input_sigma": 0.1}, False, {"input_sigma": 0.1, "input_sigma_normalized": 0.0}),
    ],
)
def test_what_settings_mean(recipe, settings, has_noise, expected):
    config = configured(recipe, settings, has_noise=has_noise)
    assert {name: getattr(config, name) for name in expected} == expected


def test_refusals():
    cases = [
        ({"recipe": "trade-6", "settings": {}}, "recipe: expected one of .*; did you mean trades-6"),
        ({"recipe": 3, "settings": {}}, "recipe: expected the name of a recipe, .*, got an object of type int"),
        ({"recipe": lambda: 3, "settings": {}}, "recipe: expected .*, got an object of type int from <lambda>"),
        (
            {"recipe": failing, "settings": {}},
            "recipe: expected a function .*, got failing, which raises KeyError: 'colour'",
        ),
        ({"recipe": "at:x.y", "settings": {}}, "recipe: expected a module that can be imported, got at:x.y"),
        ({"recipe": "at", "settings": {"epoch": 3}}, "^epoch: expected an argument of train .*; did you mean epochs"),
        ({"recipe": "at", "settings": {"epochs": [3]}}, r"^epochs: expected an integer of at least 1, got \[3\]"),
        ({"recipe": "at", "settings": {"start": 3}}, "^start: expected a string, got 3"),
    ]
    check_refusals(configured, cases)
