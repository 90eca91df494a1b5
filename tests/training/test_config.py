"""Configurations refuse what makes no sense, and survive JSON."""

import json

import pytest

from smoothed.errors import ArgumentError
from smoothed.training.config import TrainingConfig


def test_the_defaults_are_the_papers():
    config = TrainingConfig()
    assert (config.architecture, config.injection, config.attack, config.attack_steps) == (
        "resnet20",
        "cni-w",
        "pgd",
        7,
    )
    assert (config.eps, config.adversarial_weight) == (8 / 255, 0.5)
    assert (config.lr, config.momentum, config.weight_decay) == (0.1, 0.9, 1e-4)
    assert (config.batch_size, config.epochs, config.schedule) == (256, 400, "steps")


def test_json_round_trip():
    config = TrainingConfig(seed=7, average=0.9)
    assert TrainingConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(ArgumentError, match="config: expected names that this version knows, got colour"):
        TrainingConfig.from_json({"colour": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "mnist"}, "data: expected one of cifar10, cifar100"),
        ({"architecture": "vgg"}, "architecture: expected one of resnet20"),
        ({"injection": "x"}, "injection: expected one of none"),
        ({"attack": "x"}, "attack: expected one of fgsm"),
        ({"epochs": 0}, "epochs: expected an integer of at least 1"),
        ({"eps": -1.0}, "eps: expected a finite number of at least 0"),
        ({"adversarial_weight": 1.5}, r"adversarial_weight: expected a number in \[0, 1\], got 1.5"),
        ({"precision": "fp8"}, "precision: expected one of float32, bf16"),
    ],
)
def test_bad_values(change, message):
    with pytest.raises(ArgumentError, match=message):
        TrainingConfig(**change)
