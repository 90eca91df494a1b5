"""Attacks: pure functions `(model, inputs, labels, *, ...) -> adversarial inputs`, one method a file."""

from smoothed.attacks.fgsm import fgsm, nfgsm
from smoothed.attacks.named import (
    ATTACKS,
    EVALUATION_ATTACKS,
    SINGLE_DRAW_ATTACKS,
    SINGLE_STEP_ATTACKS,
    Attack,
    named_attack,
)
from smoothed.attacks.objectives import (
    Objective,
    cross_entropy,
    expected_logits,
    expected_loss,
    expected_probabilities,
    one_draw,
)
from smoothed.attacks.pgd import pgd

__all__ = [
    "ATTACKS",
    "EVALUATION_ATTACKS",
    "SINGLE_DRAW_ATTACKS",
    "SINGLE_STEP_ATTACKS",
    "Attack",
    "Objective",
    "cross_entropy",
    "expected_logits",
    "expected_loss",
    "expected_probabilities",
    "fgsm",
    "named_attack",
    "nfgsm",
    "one_draw",
    "pgd",
]
