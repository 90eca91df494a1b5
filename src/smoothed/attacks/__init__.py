"""Adversarial attacks: functions `(model, inputs, labels, *, ...) -> adversarial inputs`, one method per file."""

from smoothed.attacks.attack import Attack, AttackOptions
from smoothed.attacks.bpda import bpda
from smoothed.attacks.eot import EOT
from smoothed.attacks.fosc import fosc
from smoothed.attacks.losses import LOSSES, Loss, cross_entropy, dlr, margin, targeted_dlr, targeted_margin
from smoothed.attacks.max_loss.apgd import apgd, apgd_targeted
from smoothed.attacks.max_loss.divergence import divergence_pgd
from smoothed.attacks.max_loss.fgsm import fgsm, fgsm_random_start, nfgsm
from smoothed.attacks.max_loss.multi_targeted import multi_targeted_pgd
from smoothed.attacks.max_loss.pgd import pgd
from smoothed.attacks.min_norm.carlini_wagner_l0 import carlini_wagner_l0
from smoothed.attacks.min_norm.carlini_wagner_l2 import carlini_wagner_l2
from smoothed.attacks.min_norm.carlini_wagner_linf import carlini_wagner_linf
from smoothed.attacks.min_norm.ddn import ddn
from smoothed.attacks.min_norm.minimum import within_radius
from smoothed.attacks.named import (
    ATTACKS,
    EVALUATION_ATTACKS,
    SINGLE_DRAW_ATTACKS,
    SINGLE_STEP_ATTACKS,
    TRAINING_ATTACKS,
    named_attack,
)
from smoothed.attacks.objectives import (
    Objective,
    expected_logits,
    expected_loss,
    expected_probabilities,
    expected_vote,
    one_draw_loss,
)
from smoothed.attacks.query_based.bayes import bayesian
from smoothed.attacks.query_based.nattack import nattack
from smoothed.attacks.query_based.queries import Queries
from smoothed.attacks.query_based.square import square
from smoothed.attacks.query_based.zoo import zoo
from smoothed.attacks.transfer_based.ensemble import Ensemble
from smoothed.attacks.transfer_based.substitute import train_substitute
from smoothed.attacks.transfer_based.substitute_attack import substitute_attack
from smoothed.attacks.transfer_based.transfer import transfer

__all__ = [
    "ATTACKS",
    "EOT",
    "EVALUATION_ATTACKS",
    "LOSSES",
    "SINGLE_DRAW_ATTACKS",
    "SINGLE_STEP_ATTACKS",
    "TRAINING_ATTACKS",
    "Attack",
    "AttackOptions",
    "Ensemble",
    "Loss",
    "Objective",
    "Queries",
    "apgd",
    "apgd_targeted",
    "bayesian",
    "bpda",
    "carlini_wagner_l0",
    "carlini_wagner_l2",
    "carlini_wagner_linf",
    "cross_entropy",
    "ddn",
    "divergence_pgd",
    "dlr",
    "expected_logits",
    "expected_loss",
    "expected_probabilities",
    "expected_vote",
    "fgsm",
    "fgsm_random_start",
    "fosc",
    "margin",
    "multi_targeted_pgd",
    "named_attack",
    "nattack",
    "nfgsm",
    "one_draw_loss",
    "pgd",
    "square",
    "substitute_attack",
    "targeted_dlr",
    "targeted_margin",
    "train_substitute",
    "transfer",
    "within_radius",
    "zoo",
]
