"""Noise inside a network: PNI, CNI and others on the weights and activations of any `torch.nn.Module`."""

from smoothed.injection.additive import Additive
from smoothed.injection.calibration import Calibration, calibrate_noise
from smoothed.injection.cni import CNI
from smoothed.injection.discretization import RandomizedDiscretization
from smoothed.injection.inject import (
    Change,
    Injection,
    NoiseStrengthWarning,
    inject,
    injected_noise,
    reinject,
)
from smoothed.injection.layer import NoiseLayer, frozen, noise_from, noise_layers, noiseless
from smoothed.injection.noisy_weights import count_weight_normals, penalties
from smoothed.injection.pni import PNI
from smoothed.injection.posterior import GaussianPosterior
from smoothed.injection.presets import PRESETS, inject_preset
from smoothed.injection.variational import VariationalDropout

__all__ = [
    "CNI",
    "PNI",
    "PRESETS",
    "Additive",
    "Calibration",
    "Change",
    "GaussianPosterior",
    "Injection",
    "NoiseLayer",
    "NoiseStrengthWarning",
    "RandomizedDiscretization",
    "VariationalDropout",
    "calibrate_noise",
    "count_weight_normals",
    "frozen",
    "inject",
    "inject_preset",
    "injected_noise",
    "noise_from",
    "noise_layers",
    "noiseless",
    "penalties",
    "reinject",
]
