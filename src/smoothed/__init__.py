"""Smoothed inference for adversarial robustness: any classifier, voting over noisy copies of its input."""

from smoothed import attacks, noise, votes
from smoothed.checkpoint import bundled, load, load_into, read_header, save
from smoothed.errors import ArgumentError, CheckpointError, DataError, OutputError, SmoothedError
from smoothed.injection import CNI, PNI, Injection, drawing, frozen, inject, noiseless
from smoothed.models import build
from smoothed.noise import Gaussian, Laplace, Uniform
from smoothed.smoothing import OneDraw, Smoothed
from smoothed.tally import Tally

__all__ = [
    "CNI",
    "PNI",
    "ArgumentError",
    "CheckpointError",
    "DataError",
    "Gaussian",
    "Injection",
    "Laplace",
    "OneDraw",
    "OutputError",
    "Smoothed",
    "SmoothedError",
    "Tally",
    "Uniform",
    "attacks",
    "build",
    "bundled",
    "drawing",
    "frozen",
    "inject",
    "load",
    "load_into",
    "noise",
    "noiseless",
    "read_header",
    "save",
    "votes",
]
