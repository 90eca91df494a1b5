"""The paper's injections by name: one dict, for the command line and for recipes."""

from collections.abc import Mapping

from torch import nn

from smoothed.checks import check_choice
from smoothed.injection.cni import CNI
from smoothed.injection.inject import NOISY_TYPES, Injection, Law, LawByType, inject
from smoothed.injection.pni import PNI

_CONVOLUTION, _LINEAR = NOISY_TYPES

# CNI-W: every convolution, the first one too; the last linear layer has element-wise PNI (FACTS, noise injection).
PRESETS: dict[str, dict[str, Law | LawByType]] = {
    "none": {},
    "pni-w": {"weights": PNI("element")},
    "pni-w-channel": {"weights": PNI("channel")},
    "pni-w-layer": {"weights": PNI("layer")},
    "pni-a-a": {"activations": PNI("layer", site="input")},
    "pni-a-b": {"activations": PNI("layer", site="output")},
    "cni-w": {"weights": {_CONVOLUTION: CNI(rank=5), _LINEAR: PNI("element")}},
    "cni-a": {"activations": CNI(rank=5)},
}


def inject_preset(model: nn.Module, name: str, strength: float = 1.0) -> Injection:
    """Put an injection of the paper into `model`.

    Args:
        model: changed in place.
        name: a key of `PRESETS`; `none` changes nothing.
        strength: factor on the deviation that every learned noise starts with.

    Raises:
        ArgumentError: an unknown name.
    """
    check_choice(name, PRESETS, "injection")
    if not PRESETS[name]:
        return Injection(model, ())
    scaled = {target: _scaled(laws, strength) for target, laws in PRESETS[name].items()}
    return inject(model, weights=scaled.get("weights"), activations=scaled.get("activations"))


def _scaled(laws: Law | LawByType, strength: float) -> Law | LawByType:
    if isinstance(laws, Mapping):
        return {kind: law.scaled(strength) for kind, law in laws.items()}
    return laws.scaled(strength)
