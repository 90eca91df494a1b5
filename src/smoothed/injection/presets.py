"""Injections of the paper and of related work by name, for the command line and for recipes."""

from collections.abc import Callable, Sequence

from torch import nn

from smoothed.errors import ArgumentError
from smoothed.injection.additive import Additive
from smoothed.injection.cni import CNI
from smoothed.injection.discretization import RandomizedDiscretization
from smoothed.injection.inject import NOISY_TYPES, Injection, NoiseLaw, add_noise
from smoothed.injection.pni import PNI
from smoothed.injection.posterior import GaussianPosterior
from smoothed.injection.variational import VariationalDropout
from smoothed.utils.checks import check_choice, check_not_negative

Preset = Callable[[nn.Module, float], Injection]
"""Function that adds noise to a network; the number is a factor on its initial standard deviation."""

_CONVOLUTION, _LINEAR = NOISY_TYPES

# Standard deviation with the best accuracy in the paper (section 5), in units of the normalised image.
INPUT_SIGMA = 0.24


def _weights(law: NoiseLaw) -> Preset:
    return lambda model, strength: add_noise(model, weights=law.scaled(strength))


def _activations(law: NoiseLaw) -> Preset:
    return lambda model, strength: add_noise(model, activations=law.scaled(strength))


def _layer_inputs(layers: Sequence[str], law: NoiseLaw) -> Preset:
    return lambda model, strength: add_noise(model, activations=law.scaled(strength), layers=layers)


def _cni_w(model: nn.Module, strength: float) -> Injection:
    """CNI on the weights of all convolutions, element-wise PNI on the weights of linear layers (the paper's CNI-W)."""
    laws = {_CONVOLUTION: CNI(rank=5).scaled(strength), _LINEAR: PNI("element").scaled(strength)}
    return add_noise(model, weights=laws)


def _learned_input(model: nn.Module, strength: float) -> Injection:
    """Gaussian noise of learned strength on the normalised image (section 3.1)."""
    return _layer_inputs([_first(model)], Additive(INPUT_SIGMA, learned=True))(model, strength)


def _rse(model: nn.Module, strength: float) -> Injection:
    """Random self-ensemble: noise of 0.2 before the first convolution, 0.1 before others (Liu et al., section 4)."""
    first = _first(model)
    inner = [name for name, layer in model.named_modules() if isinstance(layer, _CONVOLUTION) and name != first]
    layers_by_sigma = [(0.2, [first]), (0.1, inner)] if inner else [(0.2, [first])]
    return _combine(*(_layer_inputs(layers, Additive(sigma)) for sigma, layers in layers_by_sigma))(model, strength)


def _first(model: nn.Module) -> str:
    """The name of the first convolution or linear layer."""
    name = next((name for name, layer in model.named_modules() if isinstance(layer, NOISY_TYPES)), None)
    if name is None:
        raise ArgumentError("model", "at least one convolution or linear layer", "none")
    return name


def _combine(*presets: Preset) -> Preset:
    """A preset that adds the noise of all `presets`, or none of it if one of them fails."""

    def combined(model: nn.Module, strength: float) -> Injection:
        injection = Injection(model, ())
        try:
            for preset in presets:
                injection += preset(model, strength)
        except ArgumentError:
            injection.undo()
            raise
        return injection

    return combined


PRESETS: dict[str, Preset] = {
    "none": lambda model, _: Injection(model, ()),
    "pni-w": _weights(PNI("element")),
    "pni-w-channel": _weights(PNI("channel")),
    "pni-w-layer": _weights(PNI("layer")),
    "pni-a-a": _activations(PNI("layer", site="input")),
    "pni-a-b": _activations(PNI("layer", site="output")),
    "cni-w": _cni_w,
    "cni-a": _activations(CNI(rank=5)),
    "cni-w+pni-a": _combine(_cni_w, _activations(PNI("layer", site="input"))),
    "cni-w+input": _combine(_cni_w, _learned_input),
    "rse": _rse,
    "vdo-w": _weights(VariationalDropout("element")),
    "vdo-w-layer": _weights(VariationalDropout("layer")),
    "vdo-a": _activations(VariationalDropout("element")),
    "bnn-w": _weights(GaussianPosterior()),
    "randdisc": _activations(RandomizedDiscretization()),
    "cni-w+randdisc": _combine(_cni_w, _activations(RandomizedDiscretization())),
}


def inject_preset(model: nn.Module, name: str, strength: float = 1.0) -> Injection:
    """Add the noise of a preset to `model`, in place.

    The noise has the strength of its paper, which is made for training; see `inject` for networks that are trained
    already.

    Args:
        model: any network with convolutions or linear layers.
        name: key of `PRESETS`; `none` adds no noise.
        strength: factor on the initial standard deviation of all noise, at least 0.

    Returns:
        The changes, which can be printed, undone, and stored as JSON.

    Raises:
        ArgumentError: the name is unknown, or noise cannot be added to the model (see `inject`).
    """
    check_choice(name, PRESETS, "injection")
    check_not_negative(strength, "strength")
    return PRESETS[name](model, strength)
