"""Train a network: the user's own, an architecture of this package, or a checkpoint."""

import copy
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothed.api.arguments import check_arguments, optional
from smoothed.api.load import checkpoint_path
from smoothed.api.subject import called
from smoothed.attacks import Attack
from smoothed.checkpoint import CUSTOM, read_header, read_tensors
from smoothed.data.adapt import as_training
from smoothed.data.images import Images
from smoothed.data.items import Keys
from smoothed.errors import ArgumentError
from smoothed.evaluation.results import Result
from smoothed.evaluation.resume import data_fingerprints, fingerprint
from smoothed.injection import injected_noise
from smoothed.models import ARCHITECTURES
from smoothed.report.format import format_percent
from smoothed.smoothing.classifier import Smoothed
from smoothed.training.card import CARD
from smoothed.training.config import TrainingConfig
from smoothed.training.configured import AnyRecipe, configured
from smoothed.training.initial import initial_network
from smoothed.training.loop import Progress, TrainingResult
from smoothed.training.loop import train as run
from smoothed.training.state import load_state
from smoothed.utils.checks import check_not_negative, check_seed
from smoothed.utils.imports import import_object, is_object_name


@dataclass(frozen=True)
class TrainedModel:
    """Result of `train`.

    Attributes:
        model: the trained network in eval mode, from images in [0, 1] to logits (N, K), with the weights of the epoch
            with the best robust validation accuracy; with the latest weights if the time limit ended the first epoch.
        config: settings of the run.
        metrics: for each epoch, its number `epoch` (from 1), the number `step` of finished steps, the mean training
            `loss` in nats, the accuracies `validation_clean` and `validation_robust` (under PGD-7, of one draw), in
            [0, 1], and the `seconds` since the start of the run. With a single-step attack also `training_adversarial`,
            the accuracy on the training examples, and `catastrophic_overfitting`, 1 if the epoch shows it, else 0.
        best: `epoch`, `validation_clean` and `validation_robust` of the epoch whose weights `model` has; None before
            the first epoch ends.
        folder: folder of the run with its checkpoints and its model card; None if no `out` was given.
        finished: whether the run is complete; if not, the same call with the same `out` continues it.
        seconds: duration of the run, over all calls.
        result: the same as a `Result`, with one row for each epoch.
        notes: what was changed on the network that the run started from, and catastrophic overfitting if an epoch
            shows it, one sentence each.
    """

    model: nn.Module = field(repr=False)
    config: TrainingConfig = field(repr=False)
    metrics: list[dict[str, Any]] = field(repr=False)
    best: dict[str, float] | None
    folder: Path | None
    finished: bool
    seconds: float
    result: Result = field(repr=False)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.best is None:
            return f"training stopped in epoch 1 of {self.config.epochs} after {self.seconds:.0f} s"
        clean, robust = self.best["validation_clean"], self.best["validation_robust"]
        state = "" if self.finished else f", stopped after {self.seconds:.0f} s"
        return (
            f"epoch {self.best['epoch']:.0f} of {self.config.epochs}, the best on held-out images{state}: accuracy of "
            f"one draw {format_percent(clean, 2)} clean, {format_percent(robust, 2)} under PGD-7"
        )


def train(
    network: nn.Module | str | Path,
    data: Any,  # noqa: ANN401 - data of any library
    *,
    recipe: AnyRecipe = "cni-w",
    validation: Any = None,  # noqa: ANN401
    out: Path | str | None = None,
    attack: str | Callable[..., Tensor] | None = None,
    time_limit: float | None = None,
    seed: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    keys: Keys | None = None,
    compiled: bool = False,
    **settings: Any,  # noqa: ANN401 - any field's
) -> TrainedModel:
    """Train a robust network with a recipe and return it; yours stays as it was.

    After each epoch the accuracy of one draw, clean and under PGD-7, is measured on held-out images. The result has the
    weights of the epoch with the best robust accuracy. Runs are a function of the seed, up to rounding.

    Args:
        network: a network of your own from images (N, C, H, W) in [0, 1] to logits (N, K), or to an object with the
            logits as its attribute `logits`, with float32 weights; it is copied. Or the name of an architecture
            (`resnet20`, see `smoothed.build`), which starts from random weights; or a bundled name or the path of a
            checkpoint, which is fine-tuned.
        data: training data: a name (`cifar10`, `cifar100`), a folder, a `DataLoader`, a `Dataset`, a pair (images,
            labels) of tensors or NumPy arrays, or an `Images` object; uint8, or float in [0, 1]. Nothing of yours is
            written to. By default each image is cropped at random by up to 4 pixels and flipped with probability 1/2:
            `augmentation="none"` switches this off.
        recipe: a name (see `smoothed recipes`), a `TrainingConfig`, a `Recipe`, a function that returns either, or
            `package.module:name` of one. It sets the noise inside the network, the attack, the loss and the schedule.
        validation: held-out images that decide which weights are kept, of the same kinds as `data`; None for the
            validation split of a name or a folder, and for min(5000, a tenth) of other data, stratified by class. Never
            pass test images.
        out: folder of the run: checkpoints, model card, metrics and the state from which the same call continues. None
            uses a temporary folder, which is removed at the end.
        attack: attack that makes the training examples, in place of the recipe's: a name, or a function of your own
            from (model, inputs, labels) and, if it has such a parameter, `generator`, to attacked images.
        time_limit: seconds after which the state is saved and the call returns; None for no limit.
        seed: seed of all random numbers; None for the recipe's. Global generators are left as they were.
        on_progress: function called after each step with a `Progress`.
        keys: keys of image and label in data whose items are dictionaries.
        compiled: whether to compile the attacked network with torch.compile.
        settings: fields of `TrainingConfig` in place of the recipe's, such as `epochs=30`, `lr=0.05`,
            `injection="pni-w"` or `eps=4 / 255`. For networks that have noise, `injection="keep"` keeps it and
            `injection="none"` removes it.

    Returns:
        The trained network (on the device of yours, or on the CPU) and how the training went.

    Raises:
        ArgumentError: an argument or a setting is invalid, or the network does not fit the data.
        DataError: the data set does not exist or is damaged.
        CheckpointError: the checkpoint cannot be read or has other classes or other noise, or `out` holds another run.
        DivergedError: a loss or a weight is NaN or infinite.
        OutputError: a file could not be written.
        KeyboardInterrupt: Ctrl-C was pressed; with `out`, the state was saved.

    Source: the paper, section 4, and the source of each recipe.

    Example:
        >>> images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 2
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> trained = train(network, (images, labels), recipe="nfgsm", epochs=2, batch_size=12)
        >>> trained.finished, len(trained.metrics), trained.model(images).shape
        (True, 2, torch.Size([40, 2]))
    """
    given = {"out": out, "keys": keys, "compiled": compiled, "on_progress": on_progress, "time_limit": time_limit}
    check_arguments({**given, "seed": seed}, seed=optional(check_seed), time_limit=optional(check_not_negative))
    command = called(train, network, data, recipe=recipe, attack=attack, seed=seed, **settings)
    own, choices = _network_settings(network)
    if overlap := [name for name in choices if name in settings]:
        raise ArgumentError(overlap[0], "none beside a network, which settles it", repr(settings[overlap[0]]))
    own_attack, attack_settings = _attack_settings(attack)
    settings = {**settings, **choices, **attack_settings, **({} if seed is None else {"seed": seed})}
    config = configured(recipe, settings, has_noise=own is not None and bool(injected_noise(own).changes))
    name, train_set, validation_set = as_training(data, keys=keys, validation=validation)
    config = replace(config, data=name if isinstance(data, str | Path) else CUSTOM)
    with _run_folder(out) as folder:
        outcome = run(
            config,
            train_set,
            validation_set,
            folder,
            network=copy.deepcopy(own),
            attack=own_attack,
            time_limit=time_limit,
            compiled=compiled,
            on_step=on_progress,
            command=command,
        )
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        result = training_result(folder, outcome, config, train_set)
        model = _trained(config, train_set, own, folder, has_best=outcome.best is not None)
    metrics = [json.loads(line) for line in lines]
    kept = None if out is None else Path(out)
    return TrainedModel(
        model, config, metrics, outcome.best, kept, outcome.finished, outcome.seconds, result, outcome.notes
    )


def training_result(folder: Path, outcome: TrainingResult, config: TrainingConfig, images: Images) -> Result:
    """The result of a run: one row for each epoch, from the folder's model card, which the first epoch writes.

    Args:
        folder: folder of the run.
        outcome: outcome of the call of `training.loop.train`.
        config: settings of the run.
        images: the training images.
    """
    path, best = folder / CARD, folder / "best.safetensors"
    card = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"epochs": [], "kept": {}}
    rows, kept = card.pop("epochs"), card.pop("kept")
    for name in ("config", "from"):
        card.pop(name, None)
    model = {"name": config.recipe, "type": config.architecture, "classes": list(images.classes)}
    model["weights"] = fingerprint(read_tensors(best)[0]) if best.is_file() else None
    return Result(
        "train",
        rows,
        setting=config.to_json(),
        model=model,
        data={
            "name": images.name,
            "images": len(images),
            "classes": list(images.classes),
            **data_fingerprints(images),
        },
        provenance={**card, "seed": config.seed, "date": datetime.now(UTC).isoformat(timespec="seconds")},
        summary={"finished": outcome.finished, "step": outcome.step, "total_steps": outcome.total_steps, "kept": kept},
    )


def _network_settings(network: object) -> tuple[nn.Module | None, dict[str, Any]]:
    """The user's own network, copied, if it is one, and the settings that the network stands for."""
    if isinstance(network, Smoothed):
        raise ArgumentError("network", "a network", "a Smoothed classifier", "pass the network inside it, its .model")
    if isinstance(network, nn.Module):
        own = copy.deepcopy(network)
        own.zero_grad(set_to_none=True)
        if not any(parameter.requires_grad for parameter in own.parameters()):
            hint = "call network.requires_grad_()" if list(own.parameters()) else ""
            raise ArgumentError("network", "parameters that require gradients", "none", hint)
        return own, {"architecture": CUSTOM}
    if isinstance(network, str) and network in ARCHITECTURES:
        return None, {"architecture": network}
    path = checkpoint_path(network)
    if path is None or not isinstance(network, str | Path):
        expected = f"a torch.nn.Module, one of {', '.join(ARCHITECTURES)}, a bundled name, or the path of a checkpoint"
        got = repr(str(network)) if isinstance(network, str | Path) else f"an object of type {type(network).__name__}"
        raise ArgumentError("network", expected, got)
    architecture = read_header(path).get("architecture")
    if architecture == CUSTOM:
        hint = "build the network, fill it with smoothed.load_into, and pass it"
        raise ArgumentError("network", "a checkpoint of an architecture of this package", f"{path}, a custom one", hint)
    # `start` keeps the name as the user wrote it, which is also how messages name it.
    start = str(network) if Path(network).expanduser() == path or path.stem == str(network) else str(path)
    return None, {"architecture": architecture, "start": start}


def _attack_settings(attack: object) -> tuple[Attack | None, dict[str, Any]]:
    """The user's own attack if it is one, and the settings that the attack stands for."""
    found = import_object(attack, "attack") if isinstance(attack, str) and is_object_name(attack) else attack
    if found is None or isinstance(found, str):
        return None, {} if found is None else {"attack": found}
    return found, {"attack": CUSTOM}  # pyright: ignore[reportReturnType] - the run checks it


@contextmanager
def _run_folder(out: Path | str | None) -> Iterator[Path]:
    if out is not None:
        yield Path(out)
        return
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ArgumentError("out", "a folder that all processes share", "none with several processes")
    with tempfile.TemporaryDirectory(prefix="smoothed-") as folder:
        yield Path(folder)


def _trained(
    config: TrainingConfig, train_set: Images, own: nn.Module | None, folder: Path, *, has_best: bool
) -> nn.Module:
    """A network with the best weights of the run in `folder`, or with the latest if no epoch has ended."""
    model = initial_network(config, train_set, copy.deepcopy(own)).model
    header = None
    if has_best:
        weights, header = read_tensors(folder / "best.safetensors")
    else:
        groups, _ = load_state(folder / "state") or ({}, {})
        average = {n.removeprefix("module."): t for n, t in groups.get("average", {}).items() if n != "n_averaged"}
        weights = average or groups["weights"]
    with torch.no_grad():
        model.load_state_dict(weights)
    vars(model).update(checkpoint_header=header)
    vars(model).pop("loaded_name", None)  # these are no longer the weights that were loaded
    return model.eval()
