"""Configurations refuse what makes no sense, and survive JSON."""

import json
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from refusing import check_refusals
from smoothed.training.config import TrainingConfig

DEFAULTS = TrainingConfig().to_json()


def test_the_defaults_are_the_papers():
    config = TrainingConfig()
    assert (config.architecture, config.injection, config.attack, config.attack_steps) == (
        "resnet20",
        "cni-w",
        "pgd",
        7,
    )
    assert (config.eps, config.relative_step_size, config.adversarial_weight) == (8 / 255, 1 / 4, 0.5)
    assert (config.lr, config.momentum, config.weight_decay) == (0.1, 0.9, 1e-4)
    assert (config.batch_size, config.epochs, config.schedule) == (256, 400, "steps")


def test_json_round_trip():
    config = TrainingConfig(seed=7, average=0.9, start="elsewhere", data="imagefolder:some/where@64")
    assert TrainingConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert TrainingConfig.from_json({}) == TrainingConfig()
    assert TrainingConfig.from_json({"new_head": True, "start": "a"}).new_head is True
    assert TrainingConfig.from_json({"lr": 1, "start": None}).lr == 1  # JSON writes 1.0 as it likes


def test_every_setting_is_documented():
    missing = [
        field.name for field in fields(TrainingConfig) if f"\n        {field.name}: " not in TrainingConfig.__doc__
    ]
    assert missing == []


def test_it_is_a_value():
    with pytest.raises(FrozenInstanceError):
        TrainingConfig().lr = 0.2


def test_json_of_another_kind():
    cases = [
        ({"colour": 1}, "config: expected settings that this version knows, got colour"),
        ({"attack_stepz": 1}, "got attack_stepz; did you mean .*attack_steps"),
        ({"epochs": 1.5}, "config: expected epochs of type .*int.*, got 1.5"),
        ({"epochs": "4"}, "config: expected epochs of type .*int.*, got '4'"),
        ({"lr": "fast"}, "config: expected lr of type .*float.*, got 'fast'"),
        ({"new_head": 1}, "config: expected new_head of type bool, got 1"),
        ({"seed": True}, "config: expected seed of type .*int.*, got True"),
        ({"start": 3}, "config: expected start of type .*, got 3"),
        ({"data": None}, "config: expected data of type .*str.*, got None"),
        ({"lr": [0.1]}, r"config: expected lr of type .*, got \[0.1\]"),
        ({"epochs": -1}, "epochs: expected an integer of at least 1, got -1"),
    ]
    check_refusals(lambda **values: TrainingConfig.from_json(values), cases)


def test_bad_choices():
    check_refusals(
        TrainingConfig,
        [
            ({"data": "mnist"}, "data: expected one of cifar10, cifar100"),
            ({"architecture": "vgg"}, "architecture: expected one of resnet20"),
            ({"architecture": "resnet21"}, "got 'resnet21'; did you mean .*resnet20"),
            ({"injection": "x"}, "injection: expected one of none"),
            ({"input_draws": "x"}, "input_draws: expected one of fresh, fixed"),
            ({"attack": "x"}, "attack: expected one of fgsm.*none, free, iaat"),
            ({"norm": "l1"}, "norm: expected one of linf, l2"),
            ({"loss": "hinge"}, "loss: expected one of adversarial, bernoulli, trades, mart, consistency"),
            ({"schedule": "x"}, "schedule: expected one of steps, onecycle"),
            ({"precision": "fp8"}, "precision: expected one of auto, float32, bf16, got 'fp8'"),
            ({"keep": "all"}, "keep: expected one of best, extremes"),
            ({"augmentation": "flip"}, "augmentation: expected one of crop-flip, none"),
            ({"data": 3}, "data: expected a string, got 3"),
            ({"start": Path("a")}, "start: expected a string, got PosixPath"),
            ({"seed": 1.5}, "seed: expected an integer of at most 64 bits, got 1.5"),
            ({"new_head": 1, "start": "a"}, "new_head: expected True or False, got 1"),
            ({"new_head": True}, "new_head: expected a checkpoint whose last layer it replaces, got none; name"),
            ({"injection": "keep"}, "injection: expected a noise for a new network, got 'keep'; name the network"),
            ({"injection": "remove"}, "injection: expected a noise for a new network, got 'remove'; name the network"),
            ({"eps": 8}, r"eps: expected a radius of at most 1 .* in the L-inf norm, got 8; write 8/255"),
            ({"copy_sigma": 25}, "copy_sigma: expected a standard deviation of at most 1 .* got 25; write 25/255"),
            (
                {"attack": "noisy", "copy_sigma": 0.0},
                "copy_sigma: expected .* above 0 with attack noisy, because copies",
            ),
            (
                {"attack": "maxup", "copy_sigma": 0.0},
                "copy_sigma: expected .* above 0 with attack maxup, because copies",
            ),
            ({"auxiliary_norms": 1}, "auxiliary_norms: expected True or False, got 1"),
            (
                {"auxiliary_norms": True, "adversarial_weight": 1.0},
                "auxiliary_norms: expected False where .* a pass of its own, got True; use loss adversarial with an",
            ),
            *(
                ({"auxiliary_norms": True, **settings}, "auxiliary_norms: expected False where the loss does not have")
                for settings in (
                    *({"loss": "bernoulli"}, {"loss": "consistency"}, {"attack": "none"}),
                    *({"loss": "trades", "beta": 0.0}, {"loss": "mart", "beta": 0.0}, {"adversarial_weight": 0.0}),
                )
            ),
            (
                {"input_sigma": 1.5},
                "input_sigma: expected a standard deviation of at most 1 .* got 1.5; for a number in",
            ),
            ({"loss": "mart", "label_smoothing": 0.1}, "label_smoothing: expected 0 with loss mart.*got 0.1"),
            ({"hidden_noise": 1.0, "hidden_steps": 1}, "hidden_steps: expected at least 2 with hidden_noise: .* got 1"),
            (
                {"input_sigma": 0.1, "input_sigma_normalized": 0.2},
                "input_sigma: expected only one of input_sigma and input_sigma_normalized above 0, got both",
            ),
        ],
    )


COUNTS = [
    *("attack_steps", "eot_samples", "copies", "loss_samples", "replays", "epochs", "batch_size", "accumulation"),
    *("hidden_steps", "hidden_layers"),
]
SHARES = ["adversarial_weight", "label_smoothing", "average", "eps_warmup", "steps_warmup", "nfgsm_warmup"]
AMOUNTS = sorted(name for name, value in DEFAULTS.items() if type(value) is float and name not in SHARES)


@pytest.mark.parametrize(
    ("names", "values", "expected"),
    [
        ([*COUNTS, "validation_attack_images"], [0, -3, 1.5, True, "2"], "an integer of at least 1"),
        (SHARES, [-0.1, 1.01, float("nan"), True, "half"], r"a number in \[0, 1\]"),
        (AMOUNTS, [-1e-9, float("inf"), float("nan"), False], "a finite number of at least 0"),
    ],
    ids=["counts", "shares", "amounts"],
)
def test_bad_numbers(names, values, expected):
    cases = [({name: value}, f"^{name}: expected {expected}, got {value!r}") for name in names for value in values]
    check_refusals(TrainingConfig, cases)


@pytest.mark.parametrize(
    ("settings", "needs"),
    [
        ({}, True),
        ({"attack": "none"}, False),
        ({"adversarial_weight": 0.0}, False),
        ({"loss": "bernoulli", "adversarial_weight": 0.0}, False),
        ({"loss": "bernoulli"}, True),
        ({"loss": "trades", "adversarial_weight": 0.0}, True),
        ({"loss": "trades", "beta": 0.0}, False),
        ({"loss": "mart", "beta": 0.0, "adversarial_weight": 0.0}, True),
        ({"loss": "mart", "attack": "none"}, False),
        ({"loss": "consistency", "adversarial_weight": 0.0, "beta": 0.0}, True),
        ({"attack": "maxup"}, True),
        ({"loss": "csat", "adversarial_weight": 0.0}, True),
        ({"loss": "csat", "adversarial_weight": 0.0, "beta": 0.0, "lipschitz_weight": 0.0}, False),
    ],
)
def test_who_needs_an_attack(settings, needs):
    """Those whose loss has a term of positive weight that looks at adversarial examples."""
    assert TrainingConfig(**settings).needs_attack is needs
