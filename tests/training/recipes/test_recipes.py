"""Recipes are valid, whole, and what their papers say."""

import json
from dataclasses import FrozenInstanceError, fields

import pytest

from smoothed.cli.main import main
from smoothed.errors import ArgumentError
from smoothed.training.config import TrainingConfig
from smoothed.training.recipes import RECIPES, Recipe, collect

FIELDS = {field.name for field in fields(TrainingConfig)}

# What each paper, or the authors' code, says of training on CIFAR-10; the schedules' lengths are FACTS' or their own.
BASE = {
    **{"architecture": "resnet20", "epochs": 400, "batch_size": 256, "schedule": "steps", "lr": 0.1},
    **{"momentum": 0.9, "weight_decay": 1e-4, "injection_strength": 1.0, "label_smoothing": 0.0, "average": 0.0},
}
PGD_7 = {"attack": "pgd", "norm": "linf", "eps": 8 / 255, "relative_step_size": 1 / 4, "attack_steps": 7}
EQ_6 = {"loss": "adversarial", "adversarial_weight": 0.5}
TRADES = {"loss": "trades", "attack": "kl", "eps": 8 / 255, "relative_step_size": 1 / 4, "attack_steps": 10}
FINE_TUNING = {"injection": "cni-w", "epochs": 200, "adversarial_weight": 0.5, "eps": 8 / 255}
FAST = {"epochs": 30, "batch_size": 128, "schedule": "onecycle", "lr": 0.2, "weight_decay": 5e-4, "eps": 8 / 255}
PUBLISHED = {
    "natural": {**BASE, "attack": "none", "injection": "none", "adversarial_weight": 0.0},
    "at": {**BASE, **PGD_7, **EQ_6, "injection": "none"},
    "at-full": {**BASE, **PGD_7, "loss": "adversarial", "adversarial_weight": 1.0, "injection": "none"},
    "trades-1": {**BASE, **TRADES, "beta": 1.0, "injection": "none"},
    "trades-6": {**BASE, **TRADES, "beta": 6.0, "injection": "none"},
    "mart": {**BASE, **PGD_7, "attack_steps": 10, "loss": "mart", "beta": 5.0, "injection": "none"},
    "pni-w": {**BASE, **PGD_7, **EQ_6, "injection": "pni-w"},
    "pni-w-channel": {**BASE, **PGD_7, **EQ_6, "injection": "pni-w-channel"},
    "pni-w-layer": {**BASE, **PGD_7, **EQ_6, "injection": "pni-w-layer"},
    "pni-a": {**BASE, **PGD_7, **EQ_6, "injection": "pni-a-a"},
    "cni-w": {**BASE, **PGD_7, **EQ_6, "injection": "cni-w"},
    "cni-a": {**BASE, **PGD_7, **EQ_6, "injection": "cni-a"},
    "cni-w+pni-a": {**BASE, **PGD_7, **EQ_6, "injection": "cni-w+pni-a"},
    "cni-w+input": {**BASE, **PGD_7, **EQ_6, "injection": "cni-w+input"},
    "cni-w+trades": {**BASE, **TRADES, "beta": 6.0, "injection": "cni-w"},
    "pni-w+trades": {**BASE, **TRADES, "beta": 6.0, "injection": "pni-w"},
    "cni-i+w": {
        **{**FINE_TUNING, **PGD_7, "loss": "bernoulli"},
        **{"input_sigma": 0.0, "input_sigma_normalized": 0.24, "input_draws": "fresh"},
    },
    "epgd": {**FINE_TUNING, **PGD_7, "attack": "epgd", "eot_samples": 8, "keep": "extremes"},
    "smoothadv": {**FINE_TUNING, **PGD_7, "attack": "smoothadv", "eot_samples": 8},
    "high-k": {**FINE_TUNING, **PGD_7, "attack_steps": 56},
    "rse": {**BASE, "attack": "none", "injection": "rse"},
    "gaussian": {**BASE, "attack": "none", "injection": "none", "input_sigma": 0.25, "input_sigma_normalized": 0.0},
    "smoothadv-l2": {
        **{"attack": "epgd", "norm": "l2", "eps": 0.5, "attack_steps": 10, "eot_samples": 4, "loss_samples": 4},
        **{"input_sigma": 0.25, "input_sigma_normalized": 0.0, "input_draws": "fixed", "adversarial_weight": 1.0},
    },
    "iaat": {**BASE, "attack": "iaat", "eps": 8 / 255, "injection": "none"},
    # Lambda is that of a later baseline; the deviations of copies are this project's.
    "stability": {**BASE, "attack": "noisy", "loss": "trades", "beta": 2.0, "copy_sigma": 0.1, "injection": "none"},
    "maxup": {**BASE, "attack": "maxup", "copies": 4, "copy_sigma": 0.1, "adversarial_weight": 1.0},
    "maxup-crop": {**BASE, "attack": "maxup-crop", "copies": 4, "adversarial_weight": 1.0, "injection": "none"},
    "dynamic": {
        **{**BASE, "attack": "dynamic", "norm": "linf", "eps": 8 / 255, "relative_step_size": 1 / 4},
        **{"attack_steps": 10, "adversarial_weight": 1.0, "injection": "none"},
    },
    "vdo": {**BASE, "attack": "none", "injection": "vdo-w", "kl_weight": 1.0},
    "vdo-w": {**BASE, **PGD_7, **EQ_6, "injection": "vdo-w", "kl_weight": 1.0},
    "vdo-a": {**BASE, **PGD_7, **EQ_6, "injection": "vdo-a", "kl_weight": 1.0},
    # The attack of the authors' code, with draws of this project's number; no other decay than the prior's.
    "adv-bnn": {
        **{**BASE, **PGD_7, "attack": "epgd-loss", "attack_steps": 10, "adversarial_weight": 1.0, "weight_decay": 0.0},
        **{"injection": "bnn-w", "kl_weight": 1.0},
    },
    "adv-bnn-no-kl": {
        **{**BASE, **PGD_7, "attack": "epgd-loss", "attack_steps": 10, "adversarial_weight": 1.0, "weight_decay": 0.0},
        **{"injection": "bnn-w", "kl_weight": 0.0},
    },
    # Numbers of steps and their length are this project's.
    "voronoi": {**BASE, "attack": "voronoi", "loss": "adversarial", "adversarial_weight": 1.0, "injection": "none"},
    "voronoi-ball": {**BASE, "attack": "voronoi-ball", "loss": "adversarial", "adversarial_weight": 1.0},
    # A public reimplementation's attack for a ResNet-50.
    "advprop": {
        **{**BASE, **PGD_7, **EQ_6, "eps": 1 / 255, "attack_steps": 1, "relative_step_size": 1.0},
        **{"auxiliary_norms": True, "injection": "none"},
    },
    "denoise": {
        **{**BASE, **PGD_7, "architecture": "resnet20-denoise", "loss": "adversarial", "adversarial_weight": 1.0},
        **{"injection": "none"},
    },
    "randdisc": {**BASE, "attack": "none", "injection": "randdisc"},
    # The attackers' networks, the weights of csat and the number of layers of anp are this project's.
    "anp": {**BASE, "attack": "none", "hidden_noise": 1.0, "hidden_steps": 3, "injection": "none"},
    "l2l": {**BASE, "attack": "l2l", "norm": "linf", "eps": 8 / 255, "adversarial_weight": 1.0, "injection": "none"},
    "l2l-2": {**BASE, "attack": "l2l-2", "norm": "linf", "adversarial_weight": 1.0, "injection": "none"},
    "csat": {
        **{**BASE, **PGD_7, "loss": "csat", "adversarial_weight": 1.0, "beta": 1.0, "lipschitz_weight": 0.1},
        **{"injection": "none"},
    },
    "fgsm-rs": {**FAST, "attack": "fgsm-rs", "adversarial_weight": 1.0, "injection": "none"},
    "nfgsm": {**FAST, "attack": "nfgsm", "adversarial_weight": 1.0, "injection": "none"},
    "fgsm-pgi": {
        **{**FAST, "attack": "fgsm-pgi", "relative_step_size": 1.0, "loss": "consistency", "beta": 10.0},
        **{"injection": "none", "label_smoothing": 0.0},
    },
    # As many steps as 400 epochs have.
    "free": {**BASE, "attack": "free", "replays": 8, "epochs": 50, "adversarial_weight": 1.0, "injection": "none"},
    "at+ema": {**BASE, **PGD_7, **EQ_6, "average": 0.999},
    "at+awp": {**BASE, **PGD_7, "adversarial_weight": 1.0, "weight_perturbation": 0.01},
    "trades+awp": {**BASE, **TRADES, "beta": 6.0, "weight_perturbation": 0.005},
    "at+ls": {**BASE, **PGD_7, **EQ_6, "label_smoothing": 0.1},
    "at+gradual": {**BASE, **PGD_7, **EQ_6, "eps_warmup": 0.2, "steps_warmup": 0.2},
}


@pytest.mark.parametrize("name", RECIPES)
def test_settings_are_the_published_ones(name):
    config = RECIPES[name].config()
    assert {setting: getattr(config, setting) for setting in PUBLISHED[name]} == PUBLISHED[name]


def test_every_recipe_is_in_the_list_of_what_is_published():
    assert PUBLISHED.keys() == RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_whole_and_survives_json(name):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert recipe.source
    assert recipe.changes
    assert recipe.settings.keys() <= FIELDS - {"recipe", "data", "seed", "start"}
    config = recipe.config(seed=4, lr=0.3)
    assert TrainingConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert (config.recipe, config.seed, config.lr) == (name, 4, 0.3)
    assert recipe.config() == TrainingConfig(recipe=name, **recipe.settings)


def test_no_two_recipes_are_the_same():
    kinds = {name: json.dumps({**recipe.config().to_json(), "recipe": ""}) for name, recipe in RECIPES.items()}
    assert len(set(kinds.values())) == len(kinds)


def test_a_variant_shares_all_other_settings():
    parent = Recipe("parent", "someone", "something", {"lr": 0.2, "epochs": 3})
    child = parent.variant("child", "another", "less", epochs=2, beta=1.0)
    assert (child.name, child.source, child.changes) == ("child", "another", "less")
    assert child.settings == {"lr": 0.2, "epochs": 2, "beta": 1.0}
    assert parent.settings == {"lr": 0.2, "epochs": 3}
    assert child.config(lr=0.1) == TrainingConfig(recipe="child", lr=0.1, epochs=2, beta=1.0)
    with pytest.raises(FrozenInstanceError):
        child.name = "parent"


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ArgumentError, match="epochs: expected an integer of at least 1"):
        RECIPES["at"].config(epochs=0)
    with pytest.raises(ArgumentError, match="label_smoothing: expected 0 with loss mart"):
        RECIPES["at+ls"].variant("both", "no one", "at once", loss="mart").config()
    with pytest.raises(TypeError, match="colour"):
        RECIPES["at"].config(colour=1)


def test_two_recipes_of_one_name():
    first, second = (Recipe(name, "someone", "something") for name in ("first", "second"))
    assert collect([first], [second]) == {"first": first, "second": second}
    with pytest.raises(ArgumentError, match="recipes: expected unique names, got two recipes named first"):
        collect([first], [second, first])


def test_an_unknown_recipe_names_the_nearest(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--recipe", "trades-7", "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    shown = capsys.readouterr().err.replace("\n", " ")
    assert "names, got 'trades-7'; did you mean trades-6 or trades-1 or trades+awp? All: natural, at, at-full" in shown
    assert not (tmp_path / "run").exists()
