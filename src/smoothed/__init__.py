"""Smoothed inference for adversarial robustness: any classifier votes over noisy copies of its input."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothed import attacks
    from smoothed.acceleration.fast import Fast
    from smoothed.checkpoint import bundled, load, load_into, read_header, save
    from smoothed.errors import (
        ArgumentError,
        CheckpointError,
        DataError,
        DivergedError,
        OutputError,
        ProcessError,
        SmoothedError,
    )
    from smoothed.injection import CNI, PNI, Additive, Injection, frozen, inject, noise_from, noiseless
    from smoothed.models import build
    from smoothed.smoothing import input_noise as noise
    from smoothed.smoothing import stopping, votes
    from smoothed.smoothing.certification import Certificate, TooFewSamplesWarning, certify, predict_or_abstain
    from smoothed.smoothing.classifier import LogProbs, Smoothed
    from smoothed.smoothing.input_noise import Gaussian, Laplace, Uniform
    from smoothed.smoothing.noisy_classifier import NoisyClassifier
    from smoothed.smoothing.tally import Tally
    from smoothed.utils.distributed import Processes
    from smoothed.utils.memory import keep_memory

# Public modules, by their name in this package.
_MODULES = {
    "attacks": "smoothed.attacks",
    "noise": "smoothed.smoothing.input_noise",
    "stopping": "smoothed.smoothing.stopping",
    "votes": "smoothed.smoothing.votes",
}

# The module of each public name, imported on first access: importing torch takes seconds, during which the command
# line must already react to Ctrl-C.
_HOMES = {
    "smoothed.smoothing.certification": ("Certificate", "TooFewSamplesWarning", "certify", "predict_or_abstain"),
    "smoothed.checkpoint": ("bundled", "load", "load_into", "read_header", "save"),
    "smoothed.errors": (
        "ArgumentError",
        "CheckpointError",
        "DataError",
        "DivergedError",
        "OutputError",
        "ProcessError",
        "SmoothedError",
    ),
    "smoothed.acceleration.fast": ("Fast",),
    "smoothed.injection": ("CNI", "PNI", "Additive", "Injection", "noise_from", "frozen", "inject", "noiseless"),
    "smoothed.utils.memory": ("keep_memory",),
    "smoothed.models": ("build",),
    "smoothed.smoothing.input_noise": ("Gaussian", "Laplace", "Uniform"),
    "smoothed.smoothing.noisy_classifier": ("NoisyClassifier",),
    "smoothed.utils.distributed": ("Processes",),
    "smoothed.smoothing.classifier": ("LogProbs", "Smoothed"),
    "smoothed.smoothing.tally": ("Tally",),
}

__all__ = [
    "CNI",
    "PNI",
    "Additive",
    "ArgumentError",
    "Certificate",
    "CheckpointError",
    "DataError",
    "DivergedError",
    "Fast",
    "Gaussian",
    "Injection",
    "Laplace",
    "LogProbs",
    "NoisyClassifier",
    "OutputError",
    "ProcessError",
    "Processes",
    "Smoothed",
    "SmoothedError",
    "Tally",
    "TooFewSamplesWarning",
    "Uniform",
    "attacks",
    "build",
    "bundled",
    "certify",
    "frozen",
    "inject",
    "keep_memory",
    "load",
    "load_into",
    "noise",
    "noise_from",
    "noiseless",
    "predict_or_abstain",
    "read_header",
    "save",
    "stopping",
    "votes",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name in _MODULES:
        value = import_module(_MODULES[name])
    else:
        home = next((home for home, names in _HOMES.items() if name in names), None)
        if home is None:
            raise AttributeError(f"module 'smoothed' has no attribute {name!r}")
        value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
