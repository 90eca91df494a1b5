"""The paper's injections, and those around it, by name: one dict, for the command line and for recipes."""

from collections.abc import Callable, Sequence

from torch import nn

from smoothed.errors import ArgumentError
from smoothed.injection.additive import Additive
from smoothed.injection.cni import CNI
from smoothed.injection.inject import NOISY_TYPES, Injection, Law, inject
from smoothed.injection.pni import PNI
from smoothed.utils.checks import check_choice

Preset = Callable[[nn.Module, float], Injection]
"""Puts its noise into a network, at a strength (a factor on the deviation that it starts with)."""

_CONVOLUTION, _LINEAR = NOISY_TYPES

# The noise maximising the paper's accuracy, in units of the normalised image (section 5).
INPUT_SIGMA = 0.24


def _weights(law: Law) -> Preset:
    return lambda model, strength: inject(model, weights=law.scaled(strength))


def _activations(law: Law) -> Preset:
    return lambda model, strength: inject(model, activations=law.scaled(strength))


def _before(layers: Sequence[str], law: Law) -> Preset:
    return lambda model, strength: inject(model, activations=law.scaled(strength), layers=layers)


def _cni_w(model: nn.Module, strength: float) -> Injection:
    """Every convolution, the first one too; the last linear layer has element-wise PNI (FACTS, noise injection)."""
    laws = {_CONVOLUTION: CNI(rank=5).scaled(strength), _LINEAR: PNI("element").scaled(strength)}
    return inject(model, weights=laws)


def _learned_input(model: nn.Module, strength: float) -> Injection:
    """Gaussian noise on the normalised image, of a strength that is learned (section 3.1)."""
    return _before([_first(model)], Additive(INPUT_SIGMA, learned=True))(model, strength)


def _rse(model: nn.Module, strength: float) -> Injection:
    """Random self-ensemble: before every convolution, 0.2 at the first and 0.1 inside (Liu et al., section 4)."""
    first = _first(model)
    inner = [name for name, layer in model.named_modules() if isinstance(layer, _CONVOLUTION) and name != first]
    places = [(0.2, [first]), (0.1, inner)] if inner else [(0.2, [first])]
    return _together(*(_before(layers, Additive(sigma)) for sigma, layers in places))(model, strength)


def _first(model: nn.Module) -> str:
    """The name of the first convolution or linear layer."""
    name = next((name for name, layer in model.named_modules() if isinstance(layer, NOISY_TYPES)), None)
    if name is None:
        raise ArgumentError("model", "at least one convolution or linear layer", "none")
    return name


def _together(*presets: Preset) -> Preset:
    def both(model: nn.Module, strength: float) -> Injection:
        injection = Injection(model, ())
        try:
            for preset in presets:
                injection += preset(model, strength)
        except ArgumentError:
            injection.undo()
            raise
        return injection

    return both


PRESETS: dict[str, Preset] = {
    "none": lambda model, _: Injection(model, ()),
    "pni-w": _weights(PNI("element")),
    "pni-w-channel": _weights(PNI("channel")),
    "pni-w-layer": _weights(PNI("layer")),
    "pni-a-a": _activations(PNI("layer", site="input")),
    "pni-a-b": _activations(PNI("layer", site="output")),
    "cni-w": _cni_w,
    "cni-a": _activations(CNI(rank=5)),
    "cni-w+pni-a": _together(_cni_w, _activations(PNI("layer", site="input"))),
    "cni-w+input": _together(_cni_w, _learned_input),
    "rse": _rse,
}


def inject_preset(model: nn.Module, name: str, strength: float = 1.0) -> Injection:
    """Put an injection of the paper into `model`.

    Args:
        model: changed in place.
        name: a key of `PRESETS`; `none` changes nothing.
        strength: factor on the deviation that every noise starts with.

    Raises:
        ArgumentError: an unknown name.
    """
    check_choice(name, PRESETS, "injection")
    return PRESETS[name](model, strength)
