"""Noise inside a network: PNI, CNI and others on the weights and activations of any `torch.nn.Module`."""

from smoothed.injection.additive import Additive
from smoothed.injection.calibration import Calibration, calibrate_noise
from smoothed.injection.cni import CNI
from smoothed.injection.inject import (
    Change,
    Injection,
    NoiseStrengthWarning,
    count_weight_normals,
    inject,
    injected_noise,
    reinject,
)
from smoothed.injection.layer import NoiseLayer, frozen, noise_from, noise_layers, noiseless
from smoothed.injection.pni import PNI
from smoothed.injection.presets import PRESETS, inject_preset
from smoothed.injection.variational import VariationalDropout

__all__ = [
    "CNI",
    "PNI",
    "PRESETS",
    "Additive",
    "Calibration",
    "Change",
    "Injection",
    "NoiseLayer",
    "NoiseStrengthWarning",
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
    "reinject",
]
