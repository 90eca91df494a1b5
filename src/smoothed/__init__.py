"""Smoothed inference for adversarial robustness: any classifier votes over noisy copies of its input."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smoothed import attacks
    from smoothed.acceleration.fast import Fast
    from smoothed.api.attack import attack
    from smoothed.api.certify import certify
    from smoothed.api.check import check
    from smoothed.api.evaluate import evaluate
    from smoothed.api.evaluate_examples import evaluate_examples
    from smoothed.api.load import load
    from smoothed.api.sweep import sweep
    from smoothed.api.train import TrainedModel, train
    from smoothed.api.worst_case import worst_case
    from smoothed.checkpoint import bundled, load_into, read_header, save
    from smoothed.errors import (
        ArgumentError,
        CheckpointError,
        DataError,
        DivergedError,
        OutputError,
        ProcessError,
        SmoothedError,
    )
    from smoothed.evaluation.results import Result
    from smoothed.injection import (
        CNI,
        PNI,
        Additive,
        Calibration,
        GaussianPosterior,
        Injection,
        NoiseStrengthWarning,
        RandomizedDiscretization,
        VariationalDropout,
        calibrate_noise,
        frozen,
        inject,
        noise_from,
        noiseless,
    )
    from smoothed.models import ModelAdapter, Normalize, build
    from smoothed.smoothing import input_noise as noise
    from smoothed.smoothing import stopping, votes
    from smoothed.smoothing.certification import Certificate, TooFewSamplesWarning, certify_inputs, predict_or_abstain
    from smoothed.smoothing.classifier import LogProbs, SigmaWarning, Smoothed
    from smoothed.smoothing.input_noise import Gaussian, Laplace, Uniform
    from smoothed.smoothing.noisy_classifier import NoisyClassifier
    from smoothed.smoothing.tally import Tally
    from smoothed.training.config import TrainingConfig
    from smoothed.training.recipes import Recipe
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
    "smoothed.smoothing.certification": ("Certificate", "TooFewSamplesWarning", "certify_inputs", "predict_or_abstain"),
    "smoothed.api.attack": ("attack",),
    "smoothed.api.certify": ("certify",),
    "smoothed.api.check": ("check",),
    "smoothed.api.evaluate": ("evaluate",),
    "smoothed.api.evaluate_examples": ("evaluate_examples",),
    "smoothed.api.load": ("load",),
    "smoothed.api.sweep": ("sweep",),
    "smoothed.api.train": ("TrainedModel", "train"),
    "smoothed.api.worst_case": ("worst_case",),
    "smoothed.checkpoint": ("bundled", "load_into", "read_header", "save"),
    "smoothed.evaluation.results": ("Result",),
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
    "smoothed.injection": (
        "CNI",
        "PNI",
        "Additive",
        "Calibration",
        "GaussianPosterior",
        "Injection",
        "NoiseStrengthWarning",
        "RandomizedDiscretization",
        "VariationalDropout",
        "calibrate_noise",
        "frozen",
        "inject",
        "noise_from",
        "noiseless",
    ),
    "smoothed.utils.memory": ("keep_memory",),
    "smoothed.models": ("ModelAdapter", "Normalize", "build"),
    "smoothed.smoothing.input_noise": ("Gaussian", "Laplace", "Uniform"),
    "smoothed.smoothing.noisy_classifier": ("NoisyClassifier",),
    "smoothed.training.config": ("TrainingConfig",),
    "smoothed.training.recipes": ("Recipe",),
    "smoothed.utils.distributed": ("Processes",),
    "smoothed.smoothing.classifier": ("LogProbs", "SigmaWarning", "Smoothed"),
    "smoothed.smoothing.tally": ("Tally",),
}

__all__ = [
    "CNI",
    "PNI",
    "Additive",
    "ArgumentError",
    "Calibration",
    "Certificate",
    "CheckpointError",
    "DataError",
    "DivergedError",
    "Fast",
    "Gaussian",
    "GaussianPosterior",
    "Injection",
    "Laplace",
    "LogProbs",
    "ModelAdapter",
    "NoiseStrengthWarning",
    "NoisyClassifier",
    "Normalize",
    "OutputError",
    "ProcessError",
    "Processes",
    "RandomizedDiscretization",
    "Recipe",
    "Result",
    "SigmaWarning",
    "Smoothed",
    "SmoothedError",
    "Tally",
    "TooFewSamplesWarning",
    "TrainedModel",
    "TrainingConfig",
    "Uniform",
    "VariationalDropout",
    "attack",
    "attacks",
    "build",
    "bundled",
    "calibrate_noise",
    "certify",
    "certify_inputs",
    "check",
    "evaluate",
    "evaluate_examples",
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
    "sweep",
    "train",
    "votes",
    "worst_case",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name == "__version__":
        from smoothed.checkpoint import package_version  # noqa: PLC0415 - imports torch

        value = package_version()
    elif name in _MODULES:
        value = import_module(_MODULES[name])
    else:
        home = next((home for home, names in _HOMES.items() if name in names), None)
        if home is None:
            raise AttributeError(f"module 'smoothed' has no attribute {name!r}")
        value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
