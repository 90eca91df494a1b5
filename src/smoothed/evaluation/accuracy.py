"""Accuracy of one draw: what a network is worth without a vote, clean or under attack."""

import torch
from torch import Tensor

from smoothed.attacks import Attack
from smoothed.checks import check_logits
from smoothed.data.imageset import ImageSet
from smoothed.injection import drawing
from smoothed.modes import Classifier, evaluating
from smoothed.randomness import Fresh, mix, seeded


def one_draw_accuracy(
    model: Classifier,
    data: ImageSet,
    *,
    attack: Attack | None = None,
    batch_size: int = 250,
    seed: int = 0,
) -> float:
    """The share of `data` that one draw of `model` classifies correctly, after `attack` if there is one.

    Args:
        model: from images to logits (N, K); run in eval mode, left as found.
        data: images on the model's device.
        attack: makes the images adversarial first, each batch with fresh network noise at each gradient.
        batch_size: images at a time. Weight noise is shared within a batch.
        seed: of the attack's starts and of the network's noise.

    Returns:
        A fraction in [0, 1].
    """
    correct = 0
    for number, (inputs, labels) in enumerate(data.batches(batch_size)):
        generator = seeded(mix(seed, number), inputs.device)
        with drawing(model, Fresh(generator)), evaluating(model):
            images = inputs if attack is None else attack(model, inputs, labels, generator)
            correct += int((_classes(model, images) == labels).sum())
    return correct / len(data)


@torch.no_grad()
def _classes(model: Classifier, images: Tensor) -> Tensor:
    return check_logits(model(images), len(images)).argmax(1)
