"""What a recipe costs, counted in forward passes of one image.

A backward pass to the inputs costs as much as a forward pass; to inputs and weights, twice as much. Batch norms, noise
and validation are not counted.
"""

from smoothed.attacks import SINGLE_STEP_ATTACKS
from smoothed.attacks.objectives import HELD_DRAWS
from smoothed.training.config import TrainingConfig

ASCENT = 2
"""A forward pass and a backward pass to the inputs."""
DESCENT = 3
"""A forward pass and a backward pass to inputs and weights."""


def forward_equivalents(config: TrainingConfig) -> int:
    """Forward passes that one image costs in an epoch, at full radius and steps."""
    descents = _passes(config) * DESCENT * (2 if config.weight_perturbation else 1)
    return config.replays * (_examples(config) + descents)


def _examples(config: TrainingConfig) -> int:
    ascents = config.attack_steps * ASCENT
    if not config.needs_attack or config.attack == "free":
        return 0
    if config.attack in SINGLE_STEP_ATTACKS:
        return ASCENT
    if config.attack == "kl":
        return 1 + ascents
    if config.attack == "iaat":
        return 3 * ascents + 2  # the larger radius and the image's own are tried, then the chosen one is attacked
    samples = config.attack_samples
    if config.attack == "smoothadv" and samples > HELD_DRAWS:
        return config.attack_steps * (1 + samples * (1 + ASCENT))  # every draw is met twice, the first three times
    return ascents * (samples if config.attack in ("epgd", "epgd-loss", "smoothadv") else 1)


def _passes(config: TrainingConfig) -> int:
    two = {
        "adversarial": 0 < config.adversarial_weight < 1,
        "bernoulli": False,
        "trades": config.beta > 0,
        "mart": config.beta > 0,
    }
    return config.loss_samples * (2 if two[config.loss] else 1)
