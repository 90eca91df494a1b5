"""The obfuscated-gradient checklist (Athalye et al., 2018; Carlini et al., 2019), run: one flaw a check."""

from smoothed.evaluation.gradient_masking.defence import Defence, Settings
from smoothed.evaluation.gradient_masking.finding import Estimate, Figure, Finding, Verdict
from smoothed.evaluation.gradient_masking.run import CHECKS, Check, run_checks, summary

__all__ = [
    "CHECKS",
    "Check",
    "Defence",
    "Estimate",
    "Figure",
    "Finding",
    "Settings",
    "Verdict",
    "run_checks",
    "summary",
]
