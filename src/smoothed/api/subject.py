"""What a public function works on: any classifier and any images, checked and put on one device."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from smoothed.acceleration.fast import Fast
from smoothed.acceleration.fusing import Fused
from smoothed.api.load import load, loaded_name
from smoothed.data.adapt import as_images
from smoothed.data.images import Images, has_named_classes
from smoothed.data.loader import is_stream
from smoothed.errors import ArgumentError, SmoothedError
from smoothed.evaluation.correctness import OnProgress, ignore_progress, two_draws
from smoothed.evaluation.provenance import result_provenance
from smoothed.evaluation.results import PairedGain, Result
from smoothed.evaluation.resume import fingerprints
from smoothed.models.adapt import ModelAdapter, check_not_probabilities
from smoothed.smoothing.classifier import Smoothed, check_sigma
from smoothed.smoothing.config import NoiseConfig, SmoothingConfig
from smoothed.smoothing.input_noise import NOISES, Noise, ScaledNoise
from smoothed.smoothing.noisy_classifier import NoisyClassifier
from smoothed.utils.checks import check_logits, output_logits
from smoothed.utils.imports import error_summary
from smoothed.utils.modes import Classifier, eval_mode
from smoothed.utils.names import name_of

# Number of images that show what a model returns.
PROBE = 16

# Options of the public functions that change neither the rows of a result nor its tensors.
_NOT_OF_THE_RESULT = {"chunk_size", "command", "examples", "on_batch", "on_progress", "out", "processes"}

ClassNames = tuple[str, ...] | None
AnyClassifier = Smoothed | Classifier | Path | str
"""What the public functions evaluate: a smoothed classifier, a callable from images to logits, or a name for `load`."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A classifier and images on one device.

    Attributes:
        network: the network from images in [0, 1] to logits (N, K).
        smoothing: how it is smoothed; None for a plain network.
        images: images to work on.
        name: name of the model in tables.
        class_names: names of the model's classes, where they are known.
        num_classes: number K of the model's classes.
    """

    network: nn.Module
    smoothing: SmoothingConfig | None
    images: Images
    name: str
    class_names: ClassNames
    num_classes: int

    @classmethod
    def of(
        cls,
        classifier: AnyClassifier,
        data: Any,  # noqa: ANN401 - whatever `as_images` takes
        *,
        split: str = "test",
        images: int | None = None,
        at_most: bool = False,
        keys: tuple[str, str] | None = None,
        name: str | None = None,
    ) -> Self:
        """Take any classifier and any images; see `evaluate` for the arguments.

        With `at_most`, fewer images than `images` are no error.

        Raises:
            ArgumentError: the classifier is no callable, gives no logits, or has other classes than the data.
            DataError: the data set does not exist or is damaged.
            CheckpointError: the checkpoint does not exist or is damaged.

        Warns:
            SigmaWarning: see `Smoothed`.
        """
        smoothing = None
        if isinstance(classifier, str | Path):
            network = load(classifier)
            smoothing = _stored_smoothing(network)
            name = name or str(classifier)
        elif isinstance(classifier, Smoothed):
            smoothing = SmoothingConfig.of(classifier)
            network = _network(classifier.model)
        else:
            network = _network(classifier)
        device = next((tensor.device for tensor in (*network.parameters(), *network.buffers())), torch.device("cpu"))
        # `first` names the argument as the user wrote it, and only streams need their number of images beforehand.
        found = as_images(data, split, keys=keys, count=images if is_stream(data) else None)
        count = min(images, len(found)) if at_most and isinstance(images, int) else images
        taken = found.first(count).to(device)
        names = _class_names(network)
        num_classes = _probed_classes(network, taken)
        _check_classes(taken, names, num_classes)
        return cls(network, smoothing, taken, name or loaded_name(network) or _type_name(network), names, num_classes)

    @property
    def device(self) -> torch.device:
        """The device of the images."""
        return self.images.device

    @property
    def own_smoothing(self) -> dict[str, Any] | None:
        """The smoothing of the classifier, else that which its checkpoint stores, as JSON values; None for neither."""
        own = self.smoothing or _stored_smoothing(self.network)
        return None if own is None else own.to_json(self.network)

    def has_random_network(self, seed: int) -> bool:
        """Whether two passes over the same images, without input noise, give other logits."""
        inputs, _ = next(iter(self.images.batches(min(PROBE, len(self.images)))))
        first, second = two_draws(NoisyClassifier(self.network), inputs, seed)
        return not torch.equal(first, second)

    def required_smoothing(self, function: str) -> SmoothingConfig:
        """The smoothing; raises where the classifier is a plain network.

        Raises:
            ArgumentError: the classifier is a plain network.
        """
        if self.smoothing is None:
            hint = "for example Smoothed(model, Gaussian(0.06), num_samples=64)"
            raise ArgumentError("classifier", f"a Smoothed classifier for {function}", self.name, hint)
        return self.smoothing

    def noises(self, given: Sequence[NoiseConfig | Noise | None] | None) -> list[NoiseConfig]:
        """The given noises, or that of the classifier; none for a plain network.

        Raises:
            ArgumentError: a deviation is above 1.

        Warns:
            SigmaWarning: see `Smoothed`.
        """
        if given is None:
            return [] if self.smoothing is None else [self.smoothing.noise]
        noises = [noise if isinstance(noise, NoiseConfig) else NoiseConfig.of(noise) for noise in given]
        if self.smoothing is None or self.smoothing.layer is None:
            for noise in noises:
                check_sigma(noise.for_model(self.network), self.network)
        return noises

    def result(
        self,
        kind: str,
        rows: list[dict[str, Any]],
        *,
        command: str,
        seed: int,
        seconds: float,
        setting: dict[str, Any],
        summary: dict[str, Any] | None = None,
        comparisons: list[PairedGain] | None = None,
        tensors: dict[str, torch.Tensor] | None = None,
    ) -> Result:
        """A result with the description of the model and of the data, the labels, and its provenance."""
        prints = fingerprints(self.network, self.images)
        model = {
            "name": self.name,
            "type": _type_name(self.network),
            "weights": prints["weights"],
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "outputs": self.num_classes,
            "classes": None if self.class_names is None else list(self.class_names),
        }
        data = {
            "name": self.images.name,
            "images": len(self.images),
            "classes": list(self.images.classes),
            "classes_checked": self.classes_checked,
            "pixels": prints["pixels"],
            "labels": prints["labels"],
        }
        provenance = result_provenance(self.device, command, seed, seconds)
        # As a file gives them back: no tuples, and names of fields as strings.
        rows, setting, findings = json.loads(json.dumps([rows, setting, summary or {}]))
        tensors = {"labels": self.images.labels.cpu(), **(tensors or {})}
        return Result(kind, rows, setting, model, data, provenance, findings, comparisons or [], tensors)

    @property
    def classes_checked(self) -> str:
        """What of the classes was compared between model and data: `names`, or only their `number`."""
        return "names" if self.class_names is not None and has_named_classes(self.images) else "number"


def paired_gain_of(name: str, images: str, before: torch.Tensor, after: torch.Tensor) -> PairedGain:
    """Compare two rows by whether each image was right in each run, (runs, N)."""
    return PairedGain.of(name, images, before.double().mean(0), after.double().mean(0))


def as_progress(on_progress: OnProgress | None) -> OnProgress:
    """`on_progress`, or a function that does nothing."""
    return ignore_progress if on_progress is None else on_progress


def called(function: Callable[..., object], classifier: AnyClassifier, data: object, **options: object) -> str:
    """The call of a public function in one line, for the provenance of its result."""
    first = [_classifier_text(classifier), _argument_text(data) if isinstance(data, str) else type(data).__name__]
    given = [f"{name}={_argument_text(value)}" for name, value in options.items() if value is not None]
    return f"smoothed.{function.__name__}({', '.join([*first, *given])})"


def _classifier_text(classifier: AnyClassifier) -> str:
    """A classifier in a call: its name, how a network was loaded and smoothed, or else its type."""
    if isinstance(classifier, str | Path):
        return repr(str(classifier))
    model = classifier.model if isinstance(classifier, Smoothed) else classifier
    name = loaded_name(model) if isinstance(model, nn.Module) else None
    if name is None:
        return type(classifier).__name__
    if not isinstance(classifier, Smoothed):
        return f"load({name!r})"
    noise, vote = classifier.noisy_classifier.noise, classifier.vote
    shown = repr(noise) if noise is None or isinstance(noise, ScaledNoise) else name_of(noise)
    return f"Smoothed(load({name!r}), {shown}, vote={_argument_text(vote)}, num_samples={classifier.num_samples})"


def options_of_call(function: Callable[..., object], values: Mapping[str, Any]) -> dict[str, object]:
    """Return the options of a call that differ from their defaults and may change its result, and the seed.

    Args:
        function: the called function; its positional arguments are left out.
        values: its local variables at its start.
    """
    found = dict[str, object]()
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= values[name]
        elif parameter.kind is parameter.KEYWORD_ONLY and name not in _NOT_OF_THE_RESULT:
            value, default = values[name], parameter.default
            if name == "seed" or type(value) is not type(default) or value != default:
                found[name] = value
    return found


def _argument_text(value: object) -> str:
    """A value in a call: plain values as they are written, and names of functions, networks and noises."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_argument_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {_argument_text(each)}' for key, each in value.items())}}}"
    return repr(value) if isinstance(value, int | float | str | None.__class__) else name_of(value)


def _network(model: Classifier) -> nn.Module:
    if isinstance(model, Fast):
        return model.network.model if isinstance(model.network, Fused) else model.network
    if isinstance(model, nn.Module):
        return model
    if not callable(model):
        raise ArgumentError(
            "classifier", "a Smoothed classifier, a callable from images to logits, or a name", type(model).__name__
        )
    return ModelAdapter(model)


def _type_name(network: nn.Module) -> str:
    inner = network.model if isinstance(network, ModelAdapter) else network
    return getattr(inner, "__name__", None) or type(inner).__name__


def _header(network: nn.Module) -> dict[str, Any]:
    return getattr(network, "checkpoint_header", None) or {}


def _stored_smoothing(network: nn.Module) -> SmoothingConfig | None:
    """The smoothing that a checkpoint's header stores."""
    header = _header(network)
    card = header.get("smoothing")
    if not card:
        return None
    law = card.get("noise", "gaussian")
    noise = NoiseConfig.from_header(header, law if law in NOISES else "gaussian")
    return SmoothingConfig(noise, card.get("vote", "prediction"), card.get("num_samples", 64))


def _class_names(network: nn.Module) -> ClassNames:
    """Names of the classes, from a checkpoint's header or from the configuration of a transformers model."""
    if names := _header(network).get("classes"):
        return tuple(names)
    inner = network.model if isinstance(network, ModelAdapter) else network
    labels = getattr(getattr(inner, "config", None), "id2label", None)
    if not isinstance(labels, dict) or all(str(label).startswith("LABEL_") for label in labels.values()):
        return None
    return tuple(str(labels[index]) for index in sorted(labels))


@torch.no_grad()
def _probed_classes(network: nn.Module, images: Images) -> int:
    """Number of classes that the network returns for the first images."""
    inputs, _ = next(iter(images.batches(min(PROBE, len(images)))))
    with eval_mode(network):
        try:
            outputs = output_logits(network(inputs))
        except SmoothedError as error:
            if getattr(error, "argument", None) != "inputs":
                raise
            expected = f"a network for images of shape {tuple(inputs.shape[1:])}"
            raise ArgumentError("model", expected, f"one that raises {error_summary(error)}") from error
        except Exception as error:  # the user's code may raise any error
            expected = f"a network for images of shape {tuple(inputs.shape[1:])}"
            raise ArgumentError("model", expected, f"one that raises {error_summary(error)}") from error
    logits = check_logits(outputs, len(inputs))
    if not isinstance(network, ModelAdapter) or network.outputs != "probabilities":
        check_not_probabilities(logits)
    return logits.shape[1]


def _check_classes(images: Images, names: ClassNames, num_classes: int) -> None:
    """Raise `ArgumentError` where the classes of the model are known not to be those of the data."""
    classes = images.classes
    if not has_named_classes(images):
        if len(classes) > num_classes:
            raise ArgumentError(
                "data", f"labels in 0..{num_classes - 1}, the classes of the model", f"the label {len(classes) - 1}"
            )
        return
    if len(classes) != num_classes:
        raise ArgumentError(
            "model",
            f"{len(classes)} outputs, one for each class of {images.name}",
            f"{num_classes}",
            "use the data set that the model was trained on, or train a new head",
        )
    if names is None or names == classes:
        return
    if set(names) == set(classes):
        raise ArgumentError("model", f"the classes of {images.name} in the same order", "another order")
    first = next(pair for pair in zip(names, classes, strict=True) if pair[0] != pair[1])
    raise ArgumentError("model", f"the classes of {images.name}", f"class {first[0]} in place of {first[1]}")
