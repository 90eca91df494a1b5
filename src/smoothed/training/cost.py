"""Cost of a recipe, in forward passes per training image and epoch.

A backward pass to the inputs costs as much as a forward pass, a backward pass to inputs and weights twice as much.
Batch norms, noise and validation are not counted.
"""

from smoothed.attacks import SINGLE_DRAW_ATTACKS, SINGLE_STEP_ATTACKS, TRAINING_ATTACKS
from smoothed.attacks.objectives import MAX_STORED_DRAWS
from smoothed.training.config import TrainingConfig
from smoothed.training.examples import WORST_COPIES
from smoothed.training.examples.learned import NUMBER_OF_GRADIENTS

INPUT_GRADIENT_COST = 2
"""Cost of a forward pass and a backward pass to the inputs."""
WEIGHT_GRADIENT_COST = 3
"""Cost of a forward pass and a backward pass to inputs and weights."""


def forward_equivalents(config: TrainingConfig) -> int:
    """Cost of one image in an epoch, in forward passes, with the full number of attack steps.

    With an N-FGSM warm-up, it is that of a mean epoch, rounded. With noise in the first layers, it is that of an epoch
    that has it. The passes of an attacker network itself are not counted.
    """
    loss_cost = _loss_terms(config) * WEIGHT_GRADIENT_COST * (2 if config.weight_perturbation else 1)
    passes = config.hidden_steps if config.hidden_noise else 1
    return config.replays * (passes * (_mean_attack_cost(config) + loss_cost) + _attacker_cost(config))


def _mean_attack_cost(config: TrainingConfig) -> int:
    """Cost of the attack in a mean epoch of a run that may begin with N-FGSM."""
    if not config.needs_attack:
        return 0
    first = config.nfgsm_warmup
    return round(first * INPUT_GRADIENT_COST + (1 - first) * _attack_cost(config))


def _attacker_cost(config: TrainingConfig) -> int:
    """Cost of training an attacker network: its gradient inputs, and one more pass through the classifier."""
    gradients = NUMBER_OF_GRADIENTS.get(config.attack, 0) if config.needs_attack else 0
    return (gradients + 1) * INPUT_GRADIENT_COST if gradients else 0


def _attack_cost(config: TrainingConfig) -> int:
    single_draw_cost = config.attack_steps * INPUT_GRADIENT_COST
    if not config.needs_attack:
        return 0
    fixed_costs = {
        **dict.fromkeys(SINGLE_STEP_ATTACKS, INPUT_GRADIENT_COST),
        "fgsm-pgi": INPUT_GRADIENT_COST,
        **{name: number * INPUT_GRADIENT_COST for name, number in NUMBER_OF_GRADIENTS.items()},
        "free": 0,
        "noisy": 0,
        **dict.fromkeys(WORST_COPIES, config.copies),  # forward passes alone
        "kl": 1 + single_draw_cost,
        "iaat": 3 * single_draw_cost + 2,  # attacks at three radii; two of them are followed by a forward pass
    }
    if config.attack in fixed_costs:
        return fixed_costs[config.attack]
    samples = config.eot_samples
    if config.attack == "smoothadv" and samples > MAX_STORED_DRAWS:
        # Draws that are not stored are computed twice.
        return config.attack_steps * (1 + samples * (1 + INPUT_GRADIENT_COST))
    averages = config.attack in TRAINING_ATTACKS and config.attack not in SINGLE_DRAW_ATTACKS
    return single_draw_cost * (samples if averages else 1)


def _loss_terms(config: TrainingConfig) -> int:
    """Number of forward passes in the loss of one image, over all its draws."""
    if config.loss == "csat" and (config.beta > 0 or config.lipschitz_weight > 0):
        return config.loss_samples * (3 if config.beta > 0 else 2)
    has_two_terms = {
        "adversarial": 0 < config.adversarial_weight < 1,
        "bernoulli": False,
        "trades": config.beta > 0,
        "mart": config.beta > 0,
        "consistency": config.beta > 0,
        "csat": 0 < config.adversarial_weight < 1,
    }
    return config.loss_samples * (2 if has_two_terms[config.loss] else 1)
