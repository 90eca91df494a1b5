"""Gradient-masking checks: tests for signs that an attack fails because of its gradients, not because of robustness.

The checks follow Athalye et al. (2018) and Carlini et al. (2019).
"""

from smoothed.evaluation.gradient_masking.defence import CheckSettings, Defence
from smoothed.evaluation.gradient_masking.finding import Estimate, Figure, Finding, Verdict
from smoothed.evaluation.gradient_masking.run import CHECKS, Check, run_checks, summary

__all__ = [
    "CHECKS",
    "Check",
    "CheckSettings",
    "Defence",
    "Estimate",
    "Figure",
    "Finding",
    "Verdict",
    "run_checks",
    "summary",
]
