"""Attacks: pure functions `(model, inputs, labels, *, ...) -> adversarial inputs`, one method a file."""

from smoothed.attacks.divergence import divergence_pgd
from smoothed.attacks.fgsm import fgsm, fgsm_random_start, nfgsm
from smoothed.attacks.losses import LOSSES, Loss, cross_entropy, dlr, margin, targeted_dlr, targeted_margin
from smoothed.attacks.named import (
    ATTACKS,
    EVALUATION_ATTACKS,
    SINGLE_DRAW_ATTACKS,
    SINGLE_STEP_ATTACKS,
    TRAINING_ATTACKS,
    Attack,
    named_attack,
)
from smoothed.attacks.objectives import (
    Objective,
    expected_logits,
    expected_loss,
    expected_probabilities,
    expected_vote,
    one_draw,
)
from smoothed.attacks.pgd import pgd
from smoothed.attacks.queries import Queries

__all__ = [
    "ATTACKS",
    "EVALUATION_ATTACKS",
    "LOSSES",
    "SINGLE_DRAW_ATTACKS",
    "SINGLE_STEP_ATTACKS",
    "TRAINING_ATTACKS",
    "Attack",
    "Loss",
    "Objective",
    "Queries",
    "cross_entropy",
    "divergence_pgd",
    "dlr",
    "expected_logits",
    "expected_loss",
    "expected_probabilities",
    "expected_vote",
    "fgsm",
    "fgsm_random_start",
    "margin",
    "named_attack",
    "nfgsm",
    "one_draw",
    "pgd",
    "targeted_dlr",
    "targeted_margin",
]
