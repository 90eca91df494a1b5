"""Put noise into a network that had none, say what changed, and take it out again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage] - torch's only name for "any convolution"
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from smoothed.errors import ArgumentError, CheckpointError
from smoothed.injection.additive import Additive
from smoothed.injection.cni import CNI
from smoothed.injection.layer import NoiseLayer, noise_layers
from smoothed.injection.pni import PNI

Law = PNI | CNI | Additive
LawByType = Mapping[type[nn.Module], Law]
LAWS: dict[str, type[PNI] | type[CNI] | type[Additive]] = {"Additive": Additive, "CNI": CNI, "PNI": PNI}
NOISY_TYPES = (_ConvNd, nn.Linear)
NoisyType = _ConvNd | nn.Linear
ACTIVATION_NOISE = "activation_noise"


@dataclass(frozen=True)
class Change:
    """One noise put into one layer: the layer's name, what is noisy (`weight` or `activation`), the law, its size."""

    layer: str
    target: str
    law: Law
    parameters: int


@dataclass(frozen=True)
class Injection:
    """What `inject` changed. Printing it lists the layers; `undo` takes the noise out again."""

    model: nn.Module
    changes: tuple[Change, ...]

    def undo(self) -> None:
        """Give every layer back its own weight and activations; the learned strengths are dropped."""
        for change in reversed(self.changes):
            layer = self.model.get_submodule(change.layer)
            (_remove_from_weight if change.target == "weight" else _remove_from_activation)(layer)

    def __add__(self, other: "Injection") -> "Injection":
        """What both changed in the same model."""
        return Injection(self.model, self.changes + other.changes)

    def to_json(self) -> list[dict[str, Any]]:
        """The changes as JSON values, which `reinject` understands."""
        return [
            {"layer": c.layer, "target": c.target, "law": type(c.law).__name__, **asdict(c.law)} for c in self.changes
        ]

    def __str__(self) -> str:
        lines = [f"noise in {len(self.changes)} places, {sum(c.parameters for c in self.changes):,} parameters"]
        lines += [
            f"  {c.layer or '(the model)'}.{c.target}: {c.law}, {c.parameters:,} parameters" for c in self.changes
        ]
        return "\n".join(lines)


def inject(
    model: nn.Module,
    *,
    weights: Law | LawByType | None = None,
    activations: Law | LawByType | None = None,
    layers: Sequence[str] | Callable[[str, nn.Module], bool] | None = None,
) -> Injection:
    """Put learned noise into the convolutions and linear layers of `model`, in place.

    The noise is on in train and eval mode alike, fresh at each pass; `noiseless` switches it off for a while. Weight
    noise is shared by the whole batch (as in the paper), activation noise is each image's own.

    Args:
        model: any network; its convolutions and linear layers are what can be noisy.
        weights: the law for weights, such as `CNI(rank=5)`, or a law for each type of layer, such as
            `{torch.nn.Conv2d: CNI(rank=5), torch.nn.Linear: PNI("element")}`.
        activations: likewise for what goes into a layer or comes out of it (the law's `site`).
        layers: the names of the layers to change, or a function (name, layer) -> bool; all of them when None.

    Returns:
        What changed: print it, keep it for `undo`, store its `to_json`.

    Raises:
        ArgumentError: no law given, an unknown layer name, nothing to change, or noise where there already is some.

    Source: PNI, section 3; CNI, section 3; the paper, section 3.1.
    """
    if weights is None and activations is None:
        raise ArgumentError("weights", "a law for weights or for activations", "neither")
    by_name = dict(model.named_modules())
    if isinstance(layers, Sequence):
        unknown = [name for name in layers if not isinstance(by_name.get(name), NOISY_TYPES)]
        if unknown:
            raise ArgumentError("layers", "names of convolutions or linear layers of the model", repr(unknown[0]))
    planned: list[tuple[str, str, NoisyType, Law]] = []
    for name, layer in by_name.items():
        chosen = layers is None or (layers(name, layer) if callable(layers) else name in layers)
        if not (isinstance(layer, NOISY_TYPES) and chosen):
            continue
        for target, laws in (("weight", weights), ("activation", activations)):
            law = _law_for(layer, laws)
            if law is not None:
                planned.append((name, target, layer, law))
    if not planned:
        raise ArgumentError("model", "at least one convolution or linear layer that a law applies to", "none")
    for name, target, layer, _ in planned:
        _require_free(name, target, layer)
    # Every noise is built before the first is added: a law that does not fit leaves the model as it was.
    noises = [_noise(layer, target, law) for _, target, layer, law in planned]
    for (_, target, layer, law), noise in zip(planned, noises, strict=True):
        _add(layer, target, law, noise)
    sizes = [sum(parameter.numel() for parameter in noise.parameters()) for noise in noises]
    changes = tuple(
        Change(name, target, law, size) for (name, target, _, law), size in zip(planned, sizes, strict=True)
    )
    return Injection(model, changes)


def reinject(model: nn.Module, changes: Sequence[Mapping[str, Any]]) -> None:
    """Put into `model` the noise that `changes`, from `Injection.to_json`, describes.

    Raises:
        CheckpointError: a law that this version does not know, or a layer that `model` does not have.
    """
    for change in changes:
        options = dict(change)
        try:
            name, target, law = options.pop("layer"), options.pop("target"), LAWS[options.pop("law")](**options)
            inject(model, layers=[name], **{{"weight": "weights", "activation": "activations"}[target]: law})
        except (KeyError, TypeError, ArgumentError) as error:
            raise CheckpointError(f"injection: expected noise that fits the network, got {dict(change)}") from error


def weight_normals(model: nn.Module) -> int:
    """How many standard normals one pass draws for the weights of `model`, so that they can be drawn together."""
    count = 0
    for module in model.modules():
        if not parametrize.is_parametrized(module, "weight"):
            continue
        chain = _parametrizations(module)
        original: Tensor = chain.original  # pyright: ignore[reportAssignmentType]
        for noise in noise_layers(chain):
            form = noise.linear_form(original.detach())
            count += original.numel() + (0 if form is None or form[1] is None else form[1].shape[1])
    return count


def _law_for(layer: nn.Module, laws: Law | LawByType | None) -> Law | None:
    if isinstance(laws, Mapping):
        return next((law for kind, law in laws.items() if isinstance(layer, kind)), None)
    return laws


def _has_noise(layer: nn.Module, target: str) -> bool:
    if target == "activation":
        return hasattr(layer, ACTIVATION_NOISE)
    return parametrize.is_parametrized(layer, "weight") and bool(noise_layers(_parametrizations(layer)))


def _require_free(name: str, target: str, layer: NoisyType) -> None:
    """Raise unless `layer` can take noise at `target`."""
    if _has_noise(layer, target):
        raise ArgumentError("model", "layers without noise", f"{name}.{target}, which has some", "undo it first")
    if isinstance(layer.weight, UninitializedParameter):
        raise ArgumentError("model", "layers that know their size", f"{name}, a lazy one", "call the model once")
    if "weight" not in dict(layer.named_parameters(recurse=False)) and not parametrize.is_parametrized(layer, "weight"):
        hint = "use torch.nn.utils.parametrizations instead"
        raise ArgumentError("model", "weights that are parameters", f"{name}, whose weight is computed", hint)


def _noise(layer: NoisyType, target: str, law: Law) -> NoiseLayer:
    weight = layer.weight
    if target == "activation":
        noise = law.for_activation(*_activation_shape(layer, law.site))
    else:
        transposed = isinstance(layer, _ConvNd) and layer.transposed  # its weight is (in, out, ...)
        noise = law.for_weight(weight, channel_dim=1 if transposed else 0)
    return noise.to(weight.device, weight.dtype)


def _add(layer: NoisyType, target: str, law: Law, noise: NoiseLayer) -> None:
    if target == "weight":
        # Checking by calling, torch's default, would draw noise here.
        parametrize.register_parametrization(layer, "weight", noise, unsafe=True)
        return
    layer.add_module(ACTIVATION_NOISE, noise)
    if law.site == "input":
        layer.register_forward_pre_hook(_noisy_input)
    else:
        layer.register_forward_hook(_noisy_output)


def _activation_shape(layer: NoisyType, site: str) -> tuple[int, int]:
    if isinstance(layer, _ConvNd):
        return (layer.in_channels if site == "input" else layer.out_channels), layer.weight.ndim - 2
    return (layer.in_features if site == "input" else layer.out_features), 0


# Plain functions that find their noise through the layer, so that a copied model uses its own copy.
def _noisy_input(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (getattr(layer, ACTIVATION_NOISE)(args[0]), *args[1:])


def _noisy_output(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    del args
    return getattr(layer, ACTIVATION_NOISE)(output)


def _parametrizations(layer: nn.Module) -> nn.ModuleList:
    return layer.parametrizations.weight  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]


def _remove_from_weight(layer: nn.Module) -> None:
    chain = _parametrizations(layer)
    if len(chain) == 1:
        # Copies of a layer share its class, from which torch now deletes `weight`: let them keep theirs.
        shared = type(layer)
        layer.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))  # pyright: ignore[reportAttributeAccessIssue]
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        # The weight came back last; an optimiser's state and a state_dict go by the order there was.
        for name, parameter in list(layer.named_parameters(recurse=False)):
            if name != "weight":
                delattr(layer, name)
                layer.register_parameter(name, parameter)
    else:  # the user's own parametrizations, below ours or above it, stay
        del chain[next(index for index, step in enumerate(chain) if isinstance(step, NoiseLayer))]


def _remove_from_activation(layer: nn.Module) -> None:
    hooks = layer._forward_pre_hooks, layer._forward_hooks  # pyright: ignore[reportPrivateUsage]
    for group in hooks:
        for key in [key for key, hook in group.items() if hook in (_noisy_input, _noisy_output)]:
            del group[key]
    delattr(layer, ACTIVATION_NOISE)
