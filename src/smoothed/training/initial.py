"""The network a run starts from: new, or a checkpoint to fine-tune."""

from typing import Any

import torch
from torch import nn

from smoothed.checkpoint import load, locate, read_header
from smoothed.errors import CheckpointError
from smoothed.injection import inject_preset, noise_layers
from smoothed.models import CIFAR10_MEAN, CIFAR10_STD, CIFAR100_MEAN, CIFAR100_STD, build
from smoothed.randomness import mix
from smoothed.training.config import TrainingConfig

STATISTICS = {"cifar10": (CIFAR10_MEAN, CIFAR10_STD), "cifar100": (CIFAR100_MEAN, CIFAR100_STD)}

# The stream of randomness that initial weights are drawn from; the loop's own streams count from 1.
INITIAL = 0


def initial_network(
    config: TrainingConfig, classes: tuple[str, ...]
) -> tuple[nn.Module, list[dict[str, Any]], dict[str, Any]]:
    """The network with its noise, the noise as JSON values, and the training record of the checkpoint it comes from.

    A checkpoint without noise gets the configuration's; one with noise keeps it, and its learned strengths, times the
    configuration's `injection_strength`.

    Raises:
        CheckpointError: the checkpoint is unreadable, or of another architecture, other classes, or another noise.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(config.seed, INITIAL))  # the CPU's alone, which the fork gives back
        mean, std = STATISTICS[config.data]
        new = build(config.architecture, num_classes=len(classes), mean=mean, std=std)
    if config.start is None:
        return new, inject_preset(new, config.injection, config.injection_strength).to_json(), {}
    header = read_header(locate(config.start))
    for name, wanted in (("architecture", config.architecture), ("classes", list(classes))):
        if header.get(name) != wanted:
            raise CheckpointError(f"{config.start}: expected {name} {wanted}, got {header.get(name)}")
    model = load(config.start)
    parent = header.get("training", {})
    if not noise_layers(model):
        return model, inject_preset(model, config.injection, config.injection_strength).to_json(), parent
    if _places(header.get("injection", [])) != _places(inject_preset(new, config.injection).to_json()):
        raise CheckpointError(
            f"{config.start}: expected a network with {config.injection} or without noise, got another"
        )
    for layer in noise_layers(model):
        layer.scale_(config.injection_strength)
    return model, header.get("injection", []), parent


def _places(changes: list[dict[str, Any]]) -> list[list[tuple[str, Any]]]:
    """What is noisy and by which law, without where its strengths started."""
    return sorted(sorted((k, v) for k, v in change.items() if not k.startswith("initial")) for change in changes)
