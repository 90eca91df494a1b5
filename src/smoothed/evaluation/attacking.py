"""Attack a classifier with all its noise on, or off, as a function of a seed."""

from torch import Tensor

from smoothed.attacks import Attack
from smoothed.injection import drawing
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh
from smoothed.smoothing.input_noise import Noise
from smoothed.smoothing.noisy_classifier import OneDraw
from smoothed.utils.modes import Classifier, evaluating


def attack_draws(
    model: Classifier, noise: Noise | None, attack: Attack, inputs: Tensor, labels: Tensor, *, seed: int
) -> Tensor:
    """Adversarial inputs (N, C, H, W) of an attacker who sees one fresh draw of all noise at each pass.

    Args:
        model: from images to logits (N, K); noise inside it is drawn from the same generator as the input's.
        noise: of the input.
        attack: runs in eval mode.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,).
        seed: of the noise and of what else the attack draws.
    """
    generator = seeded(seed, inputs.device)
    draw = OneDraw(model, noise, generator=generator)
    with drawing(draw, Fresh(generator)), evaluating(draw):
        return attack(draw, inputs, labels, generator=generator)
