"""Network from which a training run starts: a new one, a checkpoint to fine-tune, or the user's own."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from smoothed.checkpoint import CUSTOM, load, locate, misfit, read_header
from smoothed.data.channels import channel_statistics
from smoothed.data.images import Images
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.injection import PRESETS, inject_preset, noise_layers, reinject
from smoothed.models import CIFAR10_MEAN, CIFAR10_STD, CIFAR100_MEAN, CIFAR100_STD, build
from smoothed.rng.seeds import mix
from smoothed.training.config import TrainingConfig
from smoothed.training.recipes import RECIPES

STATISTICS = {"cifar10": (CIFAR10_MEAN, CIFAR10_STD), "cifar100": (CIFAR100_MEAN, CIFAR100_STD)}

# Random stream of the initial weights; the streams in `batch` have the numbers from 1.
INITIAL_WEIGHTS = 0

Changes = list[dict[str, Any]]
"""Injected noise as JSON values, in the format of `Injection.to_json`."""


@dataclass(frozen=True)
class InitialNetwork:
    """Network from which a run starts, and its origin.

    Attributes:
        model: network with its injected noise.
        injection: the injected noise as JSON values.
        parent: training record of the checkpoint that the network comes from; empty if there is none.
        std: standard deviation of the data per channel, in pixel units of [0, 1].
    """

    model: nn.Module
    injection: Changes
    parent: dict[str, Any]
    std: tuple[float, ...]


def initial_network(config: TrainingConfig, train_set: Images, network: nn.Module | None = None) -> InitialNetwork:
    """Create the network from which a run of `config` starts.

    A checkpoint keeps its noise with the learned strengths, multiplied by `config.injection_strength`. Noise of
    `config.injection` that the checkpoint lacks is added.

    Args:
        config: configuration with architecture, injection, seed and the checkpoint to start from.
        train_set: training images, for the class names; data sets without an entry in `STATISTICS` are normalised by
            the statistics of these images.
        network: network of your own from images in [0, 1] to logits, to train instead of the architecture; the noise is
            added in place.

    Raises:
        ArgumentError: `network` is given without `architecture="custom"` or the other way round, or together with
            `start`.
        CheckpointError: the checkpoint cannot be read, or has another architecture, other classes, or noise that the
            injection does not include.
    """
    if (network is not None) != (config.architecture == CUSTOM):
        got = f"{config.architecture} and {'a' if network is not None else 'no'} network"
        raise ArgumentError("network", f"a network if, and only if, the architecture is {CUSTOM}", got)
    mean, std = STATISTICS[config.data] if config.data in STATISTICS else channel_statistics(train_set)
    if network is not None:
        if config.start is not None:
            raise ArgumentError("start", "none with a network of your own", config.start, "load its weights yourself")
        return InitialNetwork(
            network, inject_preset(network, config.injection, config.injection_strength).to_json(), {}, std
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(config.seed, INITIAL_WEIGHTS))  # the fork restores this generator only
        new = build(config.architecture, num_classes=len(train_set.classes), mean=mean, std=std)
    if config.start is None:
        return InitialNetwork(new, inject_preset(new, config.injection, config.injection_strength).to_json(), {}, std)
    return _fine_tuned(config, train_set.classes, new, std)


def _fine_tuned(
    config: TrainingConfig, classes: tuple[str, ...], new: nn.Module, std: tuple[float, ...]
) -> InitialNetwork:
    """The network of the checkpoint `config.start`; `new` is an untrained network of the architecture."""
    assert config.start is not None  # noqa: S101
    path = locate(config.start)
    header, model = read_header(path), load(path)
    if header.get("architecture") != config.architecture:
        with torch.random.fork_rng(devices=[]):
            bare = build(header["architecture"], num_classes=len(classes)).state_dict()
        raise CheckpointError(
            f"{config.start}: expected architecture {config.architecture}, got {header['architecture']} "
            f"({misfit(bare, new.state_dict())}); pass --architecture {header['architecture']} to fine-tune it"
        )
    if header.get("classes") != list(classes):
        raise CheckpointError(f"{config.start}: expected classes {list(classes)}, got {header.get('classes')}")
    for layer in noise_layers(model):
        layer.scale_(config.injection_strength)
    injection = inject_preset(new, config.injection, config.injection_strength)
    required, present = injection.to_json(), header.get("injection", [])
    injection.undo()
    unexpected = [change for change in present if _without_strengths(change) not in map(_without_strengths, required)]
    if unexpected:
        raise CheckpointError(_describe_unexpected_noise(config, new, present, unexpected[0]))
    added = [change for change in required if _without_strengths(change) not in map(_without_strengths, present)]
    reinject(model, added)
    return InitialNetwork(model, present + added, header.get("training", {}), std)


def _without_strengths(change: dict[str, Any]) -> list[tuple[str, Any]]:
    """The layer, target and law of injected noise, without its initial strengths."""
    return sorted((k, v) for k, v in change.items() if not k.startswith("initial"))


def _describe_unexpected_noise(
    config: TrainingConfig, network: nn.Module, present: Changes, unexpected: dict[str, Any]
) -> str:
    """An error message about noise of the checkpoint that the injection of `config` does not include."""
    recipe = RECIPES.get(config.recipe)
    of_recipe = recipe is not None and recipe.config().injection == config.injection
    origin = f"recipe {config.recipe}" if of_recipe else f"--injection {config.injection}"
    expected = "none" if config.injection == "none" else f"only {config.injection}" if of_recipe else "other noise"
    message = f"{config.start} already has {unexpected['law']} noise; {origin} expects {expected}"
    for preset in PRESETS:
        injection = inject_preset(network, preset)
        kinds = [_without_strengths(change) for change in injection.to_json()]
        injection.undo()
        if all(_without_strengths(change) in kinds for change in present):
            return f"{message}. Pass --injection {preset} to keep it"
    return message
