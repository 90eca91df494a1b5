"""Smoothed inference for adversarial robustness: any classifier, voting over noisy copies of its input."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothed import attacks, noise, stopping, votes
    from smoothed.certification import Certificate, TooFewSamplesWarning, certify, predict_or_abstain
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
    from smoothed.fast import Fast
    from smoothed.injection import CNI, PNI, Additive, Injection, drawing, frozen, inject, noiseless
    from smoothed.memory import keep_memory
    from smoothed.models import build
    from smoothed.noise import Gaussian, Laplace, Uniform
    from smoothed.one_draw import OneDraw
    from smoothed.processes import Processes
    from smoothed.smoothing import LogProbs, Smoothed
    from smoothed.tally import Tally

# Where each public name lives. Loaded when asked for: torch takes seconds, and the command line answers Ctrl-C at once.
_HOMES = {
    "smoothed": ("attacks", "noise", "stopping", "votes"),
    "smoothed.certification": ("Certificate", "TooFewSamplesWarning", "certify", "predict_or_abstain"),
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
    "smoothed.fast": ("Fast",),
    "smoothed.injection": ("CNI", "PNI", "Additive", "Injection", "drawing", "frozen", "inject", "noiseless"),
    "smoothed.memory": ("keep_memory",),
    "smoothed.models": ("build",),
    "smoothed.noise": ("Gaussian", "Laplace", "Uniform"),
    "smoothed.one_draw": ("OneDraw",),
    "smoothed.processes": ("Processes",),
    "smoothed.smoothing": ("LogProbs", "Smoothed"),
    "smoothed.tally": ("Tally",),
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
    "OneDraw",
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
    "drawing",
    "frozen",
    "inject",
    "keep_memory",
    "load",
    "load_into",
    "noise",
    "noiseless",
    "predict_or_abstain",
    "read_header",
    "save",
    "stopping",
    "votes",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    for home, names in _HOMES.items():
        if name in names:
            value = import_module(f"smoothed.{name}") if home == "smoothed" else getattr(import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'smoothed' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
