"""Accuracy of one draw: what a network is worth without a vote, clean or under attack."""

import torch
from torch import Tensor

from smoothed.attacks import Attack
from smoothed.data.images import Images
from smoothed.data.imageset import to_float
from smoothed.injection import drawing
from smoothed.rng.seeds import mix, seeded
from smoothed.rng.sources import Fresh
from smoothed.utils.checks import check_logits
from smoothed.utils.modes import Classifier, evaluating


def one_draw_accuracy(
    model: Classifier,
    data: Images,
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
    return count_correct(model, data, attack=attack, batch_size=batch_size, seed=seed) / len(data)


def count_correct(
    model: Classifier,
    data: Images,
    *,
    attack: Attack | None = None,
    batch_size: int = 250,
    seed: int = 0,
    share: tuple[int, int] = (0, 1),
) -> int:
    """How many images of `data` one draw of `model` classifies correctly, after `attack` if there is one.

    Args:
        model: as in `one_draw_accuracy`, as are `data`, `attack`, `batch_size` and `seed`.
        data: images on the model's device.
        attack: makes the images adversarial first.
        batch_size: images at a time.
        seed: of the attack's starts and of the network's noise.
        share: (p, P) counts the batches p, p + P, ... alone, for P processes whose counts add up.

    Returns:
        A whole number.
    """
    correct = 0
    own = list(enumerate(torch.arange(len(data)).split(batch_size)))[share[0] :: share[1]]
    loaded = data.load([index for _, index in own])
    for (number, _), (images, labels) in zip(own, loaded, strict=True):
        inputs = to_float(images)
        generator = seeded(mix(seed, number), inputs.device)
        with drawing(model, Fresh(generator)), evaluating(model):
            attacked = inputs if attack is None else attack(model, inputs, labels, generator)
            correct += int((_classes(model, attacked) == labels).sum())
    return correct


@torch.no_grad()
def _classes(model: Classifier, images: Tensor) -> Tensor:
    return check_logits(model(images), len(images)).argmax(1)
