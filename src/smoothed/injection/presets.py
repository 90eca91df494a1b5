"""The paper's injections by name: one dict, for the command line and for recipes."""

from torch import nn

from smoothed.checks import check_choice
from smoothed.injection.cni import CNI
from smoothed.injection.inject import NOISY_TYPES, Injection, inject
from smoothed.injection.pni import PNI

_CONVOLUTION, _LINEAR = NOISY_TYPES

# CNI-W: every convolution, the first one too; the last linear layer has element-wise PNI (FACTS, noise injection).
PRESETS: dict[str, dict] = {
    "none": {},
    "pni-w": {"weights": PNI("element")},
    "pni-w-channel": {"weights": PNI("channel")},
    "pni-w-layer": {"weights": PNI("layer")},
    "pni-a-a": {"activations": PNI("layer", site="input")},
    "pni-a-b": {"activations": PNI("layer", site="output")},
    "cni-w": {"weights": {_CONVOLUTION: CNI(rank=5), _LINEAR: PNI("element")}},
    "cni-a": {"activations": CNI(rank=5)},
}


def inject_preset(model: nn.Module, name: str) -> Injection:
    """Put the injection called `name`, a key of `PRESETS`, into `model`; `none` changes nothing."""
    check_choice(name, PRESETS, "injection")
    return inject(model, **PRESETS[name]) if PRESETS[name] else Injection(model, ())
