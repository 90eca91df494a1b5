"""Add noise to the layers of a network, list the changes, and remove the noise again."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - base class of all batch norms
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage] - torch's only name for "any convolution"
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from smoothed.errors import ArgumentError, CheckpointError
from smoothed.injection.additive import Additive
from smoothed.injection.cni import CNI
from smoothed.injection.discretization import RandomizedDiscretization, layers_of_images
from smoothed.injection.layer import NoiseLayer, noise_layers
from smoothed.injection.pni import PNI
from smoothed.injection.posterior import GaussianPosterior
from smoothed.injection.preactivation import PreactivationNoise
from smoothed.injection.variational import VariationalDropout
from smoothed.models.normalize import Normalize
from smoothed.utils.checks import check_network, check_not_negative

NoiseLaw = PNI | CNI | Additive | GaussianPosterior | RandomizedDiscretization | VariationalDropout
"""Specification of noise inside a network; it creates the noise layers."""
NoiseLawByType = Mapping[type[nn.Module], NoiseLaw]
NOISE_LAWS: dict[str, type[NoiseLaw]] = {
    "Additive": Additive,
    "CNI": CNI,
    "GaussianPosterior": GaussianPosterior,
    "PNI": PNI,
    "RandomizedDiscretization": RandomizedDiscretization,
    "VariationalDropout": VariationalDropout,
}
NOISY_TYPES = (_ConvNd, nn.Linear)
NoisyType = _ConvNd | nn.Linear
HOSTS = (*NOISY_TYPES, Normalize)
"""Layers that can hold noise on activations; a `Normalize` layer has it only where it is named."""
ACTIVATION_NOISE = "activation_noise"
"""Name of the submodule that holds the activation noise of a layer."""
STRENGTH_ADVICE = (
    "at noise of the published strength, the accuracy of a network that was trained without noise falls to chance: "
    "fine-tune the network with the noise (smoothed train --from, smoothed.train), or weaken the noise (strength=, "
    "smoothed.calibrate_noise)"
)


class NoiseStrengthWarning(UserWarning):
    """Noise of the published strength was added to a network trained without it, whose accuracy falls to chance."""


@dataclass(frozen=True)
class Change:
    """Noise added to one layer.

    Attributes:
        layer: name of the layer in its model.
        target: noisy tensor of the layer, `weight` or `activation`.
        law: law of the noise.
        parameters: number of learned noise strengths.
    """

    layer: str
    target: str
    law: NoiseLaw
    parameters: int


@dataclass(frozen=True)
class Injection:
    """Result of `inject`: the noise added to `model`. Printing it lists the layers; `undo` removes the noise."""

    model: nn.Module
    changes: tuple[Change, ...]

    def undo(self) -> None:
        """Remove the noise from all layers and discard its learned strengths."""
        for change in reversed(self.changes):
            layer = self.model.get_submodule(change.layer)
            (_remove_from_weight if change.target == "weight" else _remove_from_activation)(layer)

    def __add__(self, other: "Injection") -> "Injection":
        """Combine the changes of two injections into the same model."""
        return Injection(self.model, self.changes + other.changes)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the changes as JSON values, which `reinject` accepts."""
        return [
            {"layer": c.layer, "target": c.target, "law": type(c.law).__name__, **asdict(c.law)} for c in self.changes
        ]

    def __str__(self) -> str:
        total = sum(change.parameters for change in self.changes)
        lines = [f"noise on {len(self.changes)} weights and activations, {total:,} parameters"]
        lines += [
            f"  {c.layer or '(the model)'}.{c.target}: {c.law}, {c.parameters:,} parameters" for c in self.changes
        ]
        if any(_is_of_published_strength(change.law) for change in self.changes):
            lines.append(f"{STRENGTH_ADVICE[0].upper()}{STRENGTH_ADVICE[1:]}.")
        return "\n".join(lines)


def inject(
    model: nn.Module,
    *,
    weights: NoiseLaw | NoiseLawByType | None = None,
    activations: NoiseLaw | NoiseLawByType | None = None,
    layers: Sequence[str] | Callable[[str, nn.Module], bool] | None = None,
    strength: float = 1.0,
) -> Injection:
    """Add noise to the convolutions and linear layers of `model`, in place.

    The noise is fresh at each forward pass, in train and in eval mode; `noiseless` switches it off temporarily. Weight
    noise is shared by the whole batch (as in the paper); each image has its own activation noise.

    The laws start at the strength of their papers, which is made for training with the noise. A network that was
    trained without it falls to chance under `CNI()` or `PNI()`. Fine-tune it with the noise (`smoothed.train`), weaken
    the noise with `strength`, or let `calibrate_noise` find the strength that costs no more accuracy than you state.

    Args:
        model: any network with convolutions or linear layers.
        weights: law of the noise on weights, such as `CNI(rank=5)`, or a law for each type of layer, such as
            `{torch.nn.Conv2d: CNI(rank=5), torch.nn.Linear: PNI("element")}`; None for no noise on weights.
        activations: law, or a law for each type of layer, of the noise on the layers' inputs or outputs (the law's
            `site`; `VariationalDropout` at the outputs); None for no noise on activations.
        layers: names of the layers to change, or a function (name, layer) -> bool; None for all layers, or for the
            first one with `RandomizedDiscretization`, which changes the image. Noise on activations may also be named
            for a `Normalize` layer of this package.
        strength: factor, at least 0, on the initial standard deviation of all noise.

    Returns:
        The changes, which can be printed, undone, and stored as JSON.

    Raises:
        ArgumentError: no law is given, a layer name is unknown, no layer matches, `strength` is negative or not finite,
            or a layer cannot take the noise (for example because it already has noise).

    Warns:
        NoiseStrengthWarning: the noise has the published strength or more, and the batch norms of `model` have seen
            training batches. Whether a network without batch norm has been trained cannot be known.

    Source: He et al., 2019, section 3 (PNI); Zheltonozhskii et al., 2020, section 3 (CNI); the paper, section 3.1.

    Example:
        >>> model = nn.Linear(2, 3)
        >>> injection = inject(model, weights=PNI(), strength=0.1)
        >>> injection.changes[0].law.initial
        0.025
        >>> injection.undo()
    """
    check_not_negative(strength, "strength")
    check_network(model, "model")
    _check_laws(weights, "weights")
    _check_laws(activations, "activations")
    injection = add_noise(
        model, weights=_scaled(weights, strength), activations=_scaled(activations, strength), layers=layers
    )
    if any(_is_of_published_strength(change.law) for change in injection.changes) and _has_seen_batches(model):
        warnings.warn(STRENGTH_ADVICE, NoiseStrengthWarning, stacklevel=2)
    return injection


def add_noise(
    model: nn.Module,
    *,
    weights: NoiseLaw | NoiseLawByType | None = None,
    activations: NoiseLaw | NoiseLawByType | None = None,
    layers: Sequence[str] | Callable[[str, nn.Module], bool] | None = None,
) -> Injection:
    """Add noise as `inject` does, at the strength of the laws and without a warning about it."""
    if weights is None and activations is None:
        raise ArgumentError("weights", "a noise law for weights or for activations", "neither")
    if layers is None and isinstance(activations, RandomizedDiscretization):
        layers = layers_of_images(model, weights)
    hosts = HOSTS if weights is None and isinstance(layers, Sequence) else NOISY_TYPES
    by_name = dict(model.named_modules())
    if isinstance(layers, Sequence):
        unknown = [name for name in layers if not isinstance(by_name.get(name), hosts)]
        if unknown:
            raise ArgumentError("layers", "names of convolutions or linear layers of the model", repr(unknown[0]))
    elif layers is not None and not callable(layers):
        raise ArgumentError("layers", "names of layers, or a function (name, layer) -> bool", repr(layers))
    planned: list[tuple[str, str, NoisyType | Normalize, NoiseLaw]] = []
    for name, layer in by_name.items():
        chosen = layers is None or (layers(name, layer) if callable(layers) else name in layers)
        if not (isinstance(layer, hosts) and chosen):
            continue
        for target, laws in (("weight", weights), ("activation", activations)):
            law = _law_of_layer(layer, laws)
            if law is not None:
                planned.append((name, target, layer, law))
    if not planned:
        raise ArgumentError("model", "at least one convolution or linear layer to which a law applies", "none")
    for name, target, layer, _ in planned:
        _require_injectable(name, target, layer)
    _require_noise_of_one_kind(planned)
    # All noise layers are created before the first is added, so that an invalid law leaves the model unchanged.
    noises = [_noise_layer(layer, target, law) for _, target, layer, law in planned]
    for (_, target, layer, law), noise in zip(planned, noises, strict=True):
        _add(layer, target, law, noise)
    changes = (_change(name, target, noise) for (name, target, *_), noise in zip(planned, noises, strict=True))
    return Injection(model, tuple(changes))


def reinject(model: nn.Module, changes: Sequence[Mapping[str, Any]]) -> None:
    """Add the noise that `changes` describes to `model`, in place.

    Args:
        model: network without this noise.
        changes: noise of each layer, from `Injection.to_json`.

    Raises:
        CheckpointError: a law is unknown to this version, or `model` lacks a layer.
    """
    for change in changes:
        options = dict(change)
        try:
            name, target, law = options.pop("layer"), options.pop("target"), NOISE_LAWS[options.pop("law")](**options)
            add_noise(model, layers=[name], **{{"weight": "weights", "activation": "activations"}[target]: law})
        except (KeyError, TypeError, ArgumentError) as error:
            raise CheckpointError(f"injection: expected noise that fits the network, got {dict(change)}") from error


def injected_noise(model: nn.Module) -> Injection:
    """Return the noise that `inject` or a preset has added to `model`, whoever called it.

    The strengths in the laws are the initial ones; the learned ones are the parameters of the noise layers.
    """
    changes = list[Change]()
    for name, layer in model.named_modules():
        if not isinstance(layer, HOSTS):
            continue
        if parametrize.is_parametrized(layer, "weight"):
            changes += [_change(name, "weight", noise) for noise in noise_layers(_parametrizations(layer)) if noise.law]
        noise = getattr(layer, ACTIVATION_NOISE, None)
        if isinstance(noise, NoiseLayer) and noise.law:
            changes.append(_change(name, "activation", noise))
    return Injection(model, tuple(changes))


def _change(name: str, target: str, noise: NoiseLayer) -> Change:
    return Change(name, target, noise.law, sum(parameter.numel() for parameter in noise.parameters()))


def _check_laws(laws: object, argument: str) -> None:
    """Raise `ArgumentError` unless `laws` are None, a law, or laws by types of layers."""
    expected = "a noise law, such as CNI() or PNI(), or a dict of laws by types of layers"
    for kind, law in laws.items() if isinstance(laws, Mapping) else [(nn.Module, laws)]:
        if not isinstance(kind, type) or not (law is laws is None or hasattr(law, "scaled")) or isinstance(law, type):
            raise ArgumentError(argument, expected, repr(laws))


def _scaled(laws: NoiseLaw | NoiseLawByType | None, strength: float) -> NoiseLaw | NoiseLawByType | None:
    if isinstance(laws, Mapping):
        return {kind: law.scaled(strength) for kind, law in laws.items()}
    return None if laws is None else laws.scaled(strength)


def _is_of_published_strength(law: NoiseLaw) -> bool:
    """Whether noise relative to the size of a tensor has at least the initial deviation of its paper."""
    if isinstance(law, CNI):
        return law.initial_variance >= CNI().initial_variance
    return isinstance(law, PNI) and law.initial >= PNI().initial


def _has_seen_batches(model: nn.Module) -> bool:
    """Whether a batch norm of `model` has updated its running statistics, as training does."""
    counts = [m.num_batches_tracked for m in model.modules() if isinstance(m, _BatchNorm)]
    return any(count is not None and int(count) > 0 for count in counts)


def _law_of_layer(layer: nn.Module, laws: NoiseLaw | NoiseLawByType | None) -> NoiseLaw | None:
    if isinstance(laws, Mapping):
        return next((law for kind, law in laws.items() if isinstance(layer, kind)), None)
    return laws


def _has_noise(layer: nn.Module, target: str) -> bool:
    if target == "activation":
        return hasattr(layer, ACTIVATION_NOISE)
    return parametrize.is_parametrized(layer, "weight") and bool(noise_layers(_parametrizations(layer)))


def _require_injectable(name: str, target: str, layer: NoisyType | Normalize) -> None:
    """Raise `ArgumentError` unless noise can be added to `target` of `layer`."""
    if _has_noise(layer, target):
        raise ArgumentError(
            "model", "layers without noise", f"{name}.{target}, which already has noise", "undo its injection first"
        )
    if isinstance(layer, Normalize):
        return
    if isinstance(layer.weight, UninitializedParameter):
        raise ArgumentError(
            "model", "initialised layers", f"{name}, a lazy layer of unknown size", "call the model once"
        )
    if "weight" not in dict(layer.named_parameters(recurse=False)) and not parametrize.is_parametrized(layer, "weight"):
        hint = "use torch.nn.utils.parametrizations instead of torch.nn.utils.weight_norm or spectral_norm"
        raise ArgumentError("model", "weights that are parameters", f"{name}, whose weight is computed", hint)


def _require_noise_of_one_kind(planned: Sequence[tuple[str, str, nn.Module, NoiseLaw]]) -> None:
    """Raise `ArgumentError` if a layer has noise on its weight, and noise of its weight at its outputs."""
    noisy_weights = {name for name, target, layer, _ in planned if target == "weight" or _has_noise(layer, "weight")}
    for name, target, layer, law in planned:
        planned_at_outputs = target == "activation" and isinstance(law, VariationalDropout)
        present = getattr(layer, ACTIVATION_NOISE, None)
        if name in noisy_weights and (planned_at_outputs or isinstance(present, PreactivationNoise)):
            expected = "layers without noise on their weight for VariationalDropout, which draws it at the outputs"
            raise ArgumentError("activations", expected, f"noise on {name or 'the model'}.weight", "keep one of them")


def _noise_layer(layer: NoisyType | Normalize, target: str, law: NoiseLaw) -> NoiseLayer:
    weight = layer.std if isinstance(layer, Normalize) else layer.weight
    channel_dim = 1 if isinstance(layer, _ConvNd) and layer.transposed else 0  # a transposed weight is (in, out, ...)
    if target == "weight":
        noise = law.for_weight(weight, channel_dim=channel_dim)
    elif isinstance(law, VariationalDropout) and not isinstance(layer, Normalize):
        noise = law.for_outputs(weight, channel_dim=channel_dim)
    else:
        noise = law.for_activation(*_activation_shape(layer, law.site))
    noise.law = law
    return noise.to(weight.device, weight.dtype)


def _add(layer: NoisyType | Normalize, target: str, law: NoiseLaw, noise: NoiseLayer) -> None:
    if target == "weight":
        # By default torch calls the parametrization to check it, which would draw noise.
        parametrize.register_parametrization(layer, "weight", noise, unsafe=True)
        return
    layer.add_module(ACTIVATION_NOISE, noise)
    if isinstance(noise, PreactivationNoise):
        layer.register_forward_hook(_noisy_preactivation)
    elif law.site == "input":
        layer.register_forward_pre_hook(_noisy_input)
    else:
        layer.register_forward_hook(_noisy_output)


def _activation_shape(layer: NoisyType | Normalize, site: str) -> tuple[int, int]:
    if isinstance(layer, Normalize):
        return len(layer.mean), 2
    if isinstance(layer, _ConvNd):
        return (layer.in_channels if site == "input" else layer.out_channels), layer.weight.ndim - 2
    return (layer.in_features if site == "input" else layer.out_features), 0


# The hooks find the noise through the layer, so that a copied model uses its own copy.
def _noisy_input(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (getattr(layer, ACTIVATION_NOISE)(args[0]), *args[1:])


def _noisy_output(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    del args
    return getattr(layer, ACTIVATION_NOISE)(output)


def _noisy_preactivation(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return getattr(layer, ACTIVATION_NOISE).of_outputs(output, layer, args[0])


def _parametrizations(layer: nn.Module) -> nn.ModuleList:
    return layer.parametrizations.weight  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]


def _remove_from_weight(layer: nn.Module) -> None:
    chain = _parametrizations(layer)
    if len(chain) == 1:
        # torch deletes `weight` from the layer's class; a class of its own keeps copies of the layer intact.
        shared = type(layer)
        layer.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))  # pyright: ignore[reportAttributeAccessIssue]
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        # torch appends the weight; optimiser states and state dicts rely on the original order of parameters.
        for name, parameter in list(layer.named_parameters(recurse=False)):
            if name != "weight":
                delattr(layer, name)
                layer.register_parameter(name, parameter)
    else:  # the user's own parametrizations stay
        del chain[next(index for index, step in enumerate(chain) if isinstance(step, NoiseLayer))]


def _remove_from_activation(layer: nn.Module) -> None:
    hooks = layer._forward_pre_hooks, layer._forward_hooks  # pyright: ignore[reportPrivateUsage]
    for group in hooks:
        for key in [key for key, hook in group.items() if hook in (_noisy_input, _noisy_output, _noisy_preactivation)]:
            del group[key]
    delattr(layer, ACTIVATION_NOISE)
