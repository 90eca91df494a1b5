"""Network from which a training run starts: a new one, a checkpoint to fine-tune, or the user's own."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from smoothed.checkpoint import CUSTOM, load, locate, misfit, read_header
from smoothed.data.channels import channel_statistics
from smoothed.data.images import Images, has_named_classes
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.injection import inject_preset, injected_noise, noise_layers, reinject
from smoothed.models import CIFAR10_MEAN, CIFAR10_STD, CIFAR100_MEAN, CIFAR100_STD, build
from smoothed.models.normalize import normalization_std
from smoothed.rng.seeds import mix
from smoothed.training.config import KEEP_NOISE, REMOVE_NOISE, TrainingConfig
from smoothed.training.recipes import RECIPES
from smoothed.training.streams import TrainingStream

STATISTICS = {"cifar10": (CIFAR10_MEAN, CIFAR10_STD), "cifar100": (CIFAR100_MEAN, CIFAR100_STD)}

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
        classes: names of the classes, in the order of the logits.
        notes: what differs between the network and the checkpoint that it comes from, one sentence each.
    """

    model: nn.Module
    injection: Changes
    parent: dict[str, Any]
    std: Sequence[float]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def initial_network(config: TrainingConfig, train_set: Images, network: nn.Module | None = None) -> InitialNetwork:
    """Create the network from which a run of `config` starts.

    A checkpoint keeps its noise with the learned strengths, multiplied by `config.injection_strength`. Noise of
    `config.injection` that the checkpoint lacks is added. The same holds for noise that is already in `network`. If the
    data has another number of classes than the checkpoint, or if `config.new_head` asks for it, the last linear layer
    is replaced by that of a new network of this seed; noise on it starts anew, too.

    Args:
        config: configuration with architecture, injection, seed and the checkpoint to start from.
        train_set: training images, for the class names; data sets without an entry in `STATISTICS` are normalised by
            the statistics of these images.
        network: network of your own from images in [0, 1] to logits, to train instead of the architecture; the noise is
            added in place.

    Raises:
        ArgumentError: `network` is given without `architecture="custom"` or the other way round, or together with
            `start`; or the images have another number of channels than those of the checkpoint `start`.
        CheckpointError: the checkpoint cannot be read, or has another architecture, as many classes of other names, or
            noise that the injection does not include.
    """
    if (network is not None) != (config.architecture == CUSTOM):
        got = f"{config.architecture} and {'a' if network is not None else 'no'} network"
        hint = "in Python, pass your network to smoothed.train" if network is None else ""
        raise ArgumentError("network", f"a network if, and only if, the architecture is {CUSTOM}", got, hint)
    if network is not None and config.start is not None:
        raise ArgumentError("start", "none with a network of your own", config.start, "load its weights yourself")
    mean, std = STATISTICS[config.data] if config.data in STATISTICS else channel_statistics(train_set)
    if network is not None:
        own_std = normalization_std(network)
        if own_std is not None and len(own_std) != len(mean):
            expected = f"one number for each of the {len(mean)} channels of {train_set.name}"
            raise ArgumentError("normalize", expected, f"{len(own_std)} numbers")
        injection, notes = _fit_noise(config, network, network, "network")
        return InitialNetwork(network, injection, {}, std, train_set.classes, notes)
    with torch.random.fork_rng(devices=[]):
        # The fork restores this generator only.
        torch.default_generator.manual_seed(mix(config.seed, TrainingStream.INITIAL_WEIGHTS))
        # Standard deviations of 0, of images of one colour, would divide by 0.
        safe = [value if value > 0 else 1.0 for value in std]
        new = build(config.architecture, num_classes=len(train_set.classes), mean=mean, std=safe)
    if config.start is None:
        injection = inject_preset(new, config.injection, config.injection_strength).to_json()
        return InitialNetwork(new, injection, {}, std, train_set.classes)
    return _fine_tuned(config, train_set, new, std)


def _fine_tuned(config: TrainingConfig, train_set: Images, new: nn.Module, std: Sequence[float]) -> InitialNetwork:
    """The network of the checkpoint `config.start`; `new` is an untrained network of the architecture."""
    assert config.start is not None  # noqa: S101
    path = locate(config.start, "start")
    header, model = read_header(path), load(path)
    if header.get("architecture") != config.architecture:
        with torch.random.fork_rng(devices=[]):
            bare = build(header["architecture"], num_classes=len(train_set.classes)).state_dict()
        raise CheckpointError(
            f"{config.start}: expected architecture {config.architecture}, got {header['architecture']} "
            f"({misfit(bare, new.state_dict())}); pass --architecture {header['architecture']} to fine-tune it"
        )
    channels = len(header["mean"])
    if len(std) != channels:
        raise ArgumentError(
            "data", f"images of {channels} channels for {config.start}", f"{len(std)} in {train_set.name}"
        )
    fresh = copy.deepcopy(new)
    model, classes, notes = _with_classes(config, header, train_set, model, new)
    injection, noise_notes = _fit_noise(config, model, fresh, config.start)
    return InitialNetwork(model, injection, header.get("training", {}), std, classes, (*notes, *noise_notes))


def _with_classes(
    config: TrainingConfig, header: dict[str, Any], train_set: Images, model: nn.Module, new: nn.Module
) -> tuple[nn.Module, tuple[str, ...], tuple[str, ...]]:
    """The checkpoint's network with a last layer for the classes of the data, their names, and what was changed."""
    start, theirs, ours = config.start, tuple(header.get("classes", ())), train_set.classes
    if not config.new_head and len(theirs) == len(ours):
        if theirs == ours or not _has_names(theirs):
            return model, ours, ()
        if not has_named_classes(train_set):
            note = f"the classes of {train_set.name} have no names and are taken for those of {start}: {_some(theirs)}"
            return model, theirs, (note,)
        what = "the same classes in another order" if set(theirs) == set(ours) else f"{len(ours)} other classes"
        raise CheckpointError(
            f"{start}: expected the classes of {train_set.name} ({_some(ours)}), got {what} ({_some(theirs)}); pass "
            "--new-head to train a new last layer, or use data whose classes have the names and the order of the "
            "checkpoint's"
        )
    head = next(name for name, layer in reversed(list(new.named_modules())) if isinstance(layer, nn.Linear))
    reinject(new, header.get("injection", []))
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(f"{head}.")}
    new.load_state_dict({**new.state_dict(), **kept})
    note = f"the last layer of {start} ({len(theirs)} classes) is replaced by a new one for {len(ours)} ({_some(ours)})"
    return new, ours, (note,)


def _fit_noise(config: TrainingConfig, model: nn.Module, like: nn.Module, name: str) -> tuple[Changes, tuple[str, ...]]:
    """Make the noise of `model`, in place, that of the configuration.

    Args:
        config: configuration of the run.
        model: network, with or without noise.
        like: network of the same layers, whose noise does not matter.
        name: name of the network in messages.

    Returns:
        The noise as JSON values, and what was changed.
    """
    there = injected_noise(model)
    present = there.to_json()
    if config.injection == REMOVE_NOISE:
        there.undo()
        return [], (f"the {_laws(present)} noise of {name} is removed",) if present else ()
    for layer in noise_layers(model):
        layer.scale_(config.injection_strength)
    if config.injection == KEEP_NOISE:
        return present, ()
    if not present:
        added = inject_preset(model, config.injection, config.injection_strength).to_json()
        return added, _note_of_added(config, name) if added and config.start is not None else ()
    bare = copy.deepcopy(like)
    injected_noise(bare).undo()
    required = inject_preset(bare, config.injection, config.injection_strength).to_json()
    unexpected = [change for change in present if _without_strengths(change) not in map(_without_strengths, required)]
    if unexpected:
        raise CheckpointError(_describe_unexpected_noise(config, name, unexpected))
    added = [change for change in required if _without_strengths(change) not in map(_without_strengths, present)]
    reinject(model, added)
    return present + added, _note_of_added(config, name) if added and config.start is not None else ()


def _note_of_added(config: TrainingConfig, name: str) -> tuple[str, ...]:
    """A note that new noise takes a trained network to chance at first."""
    strength = config.injection_strength
    return (
        f"noise of {config.injection} that {name} lacks is added at {strength:g} of its published strength; at 1, a "
        "trained network falls to chance and recovers with training (see --injection-strength)",
    )


def _without_strengths(change: dict[str, Any]) -> list[tuple[str, Any]]:
    """The layer, target and law of injected noise, without its initial strengths."""
    return sorted((k, v) for k, v in change.items() if not k.startswith("initial"))


def _describe_unexpected_noise(config: TrainingConfig, name: str, unexpected: Changes) -> str:
    """An error message about noise of the network that the injection of `config` does not include."""
    recipe = RECIPES.get(config.recipe)
    of_recipe = recipe is not None and recipe.config().injection == config.injection
    origin = f"recipe {config.recipe}" if of_recipe else f"--injection {config.injection}"
    expected = "none" if config.injection == "none" else f"only {config.injection}" if of_recipe else "other noise"
    option = "--injection {}" if config.start else 'injection="{}"'
    return (
        f"{name} already has {unexpected[0]['law']} noise; {origin} expects {expected}. "
        f"Pass {option.format('keep')} to keep it, or {option.format('none')} to remove it"
    )


def _laws(changes: Changes) -> str:
    return " and ".join(sorted({change["law"] for change in changes}))


def _has_names(classes: tuple[str, ...]) -> bool:
    """Whether the classes of a checkpoint have names, not the numbers that stand for unknown names."""
    return classes != tuple(map(str, range(len(classes))))


def _some(names: tuple[str, ...], count: int = 3) -> str:
    """The first few names."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
