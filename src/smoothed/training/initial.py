"""The network a run starts from: new, a checkpoint to fine-tune, or one's own."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from smoothed.checkpoint import CUSTOM, load, locate, misfit, read_header
from smoothed.data.channels import channel_statistics
from smoothed.data.images import Images
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.injection import inject_preset, noise_layers, reinject
from smoothed.models import CIFAR10_MEAN, CIFAR10_STD, CIFAR100_MEAN, CIFAR100_STD, build
from smoothed.rng.seeds import mix
from smoothed.training.config import TrainingConfig

STATISTICS = {"cifar10": (CIFAR10_MEAN, CIFAR10_STD), "cifar100": (CIFAR100_MEAN, CIFAR100_STD)}

# The stream of randomness that initial weights are drawn from; the loop's own streams count from 1.
INITIAL = 0

Changes = list[dict[str, Any]]


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        model: the network with its noise.
        injection: the noise as JSON values.
        parent: the training record of the checkpoint it comes from, if any.
        std: the data's deviation, one number a channel, in pixel units.
    """

    model: nn.Module
    injection: Changes
    parent: dict[str, Any]
    std: tuple[float, ...]


def initial_network(config: TrainingConfig, train_set: Images, network: nn.Module | None = None) -> Start:
    """The network that `config` starts from.

    A checkpoint keeps its noise and its learned strengths, times the configuration's `injection_strength`; noise that
    the configuration has beyond it is put in.

    Args:
        config: names architecture, noise and checkpoint.
        train_set: its classes, and the statistics of its images where `STATISTICS` has none.
        network: one's own, from images in [0, 1] to logits, in place of the architecture; changed in place.

    Raises:
        ArgumentError: a network of one's own without `architecture="custom"`, or the other way round.
        CheckpointError: the checkpoint is unreadable, or of another architecture, other classes, or another noise.
    """
    if (network is not None) != (config.architecture == CUSTOM):
        got = f"{config.architecture} and {'a' if network is not None else 'no'} network"
        raise ArgumentError("network", f"a network with the architecture {CUSTOM}, and only then", got)
    mean, std = STATISTICS[config.data] if config.data in STATISTICS else channel_statistics(train_set)
    if network is not None:
        if config.start is not None:
            raise ArgumentError("start", "none with a network of your own", config.start, "load its weights first")
        return Start(network, inject_preset(network, config.injection, config.injection_strength).to_json(), {}, std)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(config.seed, INITIAL))  # the CPU's alone, which the fork gives back
        new = build(config.architecture, num_classes=len(train_set.classes), mean=mean, std=std)
    if config.start is None:
        return Start(new, inject_preset(new, config.injection, config.injection_strength).to_json(), {}, std)
    return _fine_tuned(config, train_set.classes, new, std)


def _fine_tuned(config: TrainingConfig, classes: tuple[str, ...], new: nn.Module, std: tuple[float, ...]) -> Start:
    assert config.start is not None  # noqa: S101
    path = locate(config.start)
    header = read_header(path)
    model = load(path)
    if header.get("architecture") != config.architecture:
        with torch.random.fork_rng(devices=[]):
            bare = build(header["architecture"], num_classes=len(classes)).state_dict()
        raise CheckpointError(
            f"{config.start}: expected architecture {config.architecture}, got {header['architecture']}; "
            f"{misfit(bare, new.state_dict())}"
        )
    if header.get("classes") != list(classes):
        raise CheckpointError(f"{config.start}: expected classes {list(classes)}, got {header.get('classes')}")
    for layer in noise_layers(model):
        layer.scale_(config.injection_strength)
    wanted = inject_preset(new, config.injection, config.injection_strength).to_json()
    present: Changes = header.get("injection", [])
    known, asked = [_place(change) for change in present], [_place(change) for change in wanted]
    strange = [change for change, place in zip(present, known, strict=True) if place not in asked]
    if strange:
        first = strange[0]
        raise CheckpointError(
            f"{config.start}: expected a network with {config.injection}, part of it or no noise, got "
            f"{first['law']} on {first['layer']}.{first['target']}"
        )
    added = [change for change, place in zip(wanted, asked, strict=True) if place not in known]
    reinject(model, added)
    return Start(model, present + added, header.get("training", {}), std)


def _place(change: dict[str, Any]) -> list[tuple[str, Any]]:
    """What is noisy and by which law, without where its strengths started."""
    return sorted((k, v) for k, v in change.items() if not k.startswith("initial"))
