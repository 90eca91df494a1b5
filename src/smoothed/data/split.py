"""Hold a validation split out of a training set: every choice is made on it, never on the test set."""

import torch
from torch import Tensor

from smoothed.data.images import AnyImages
from smoothed.errors import ArgumentError
from smoothed.rng.seeds import seeded

SPLITS = ("test", "validation", "train")

VALIDATION_IMAGES = 5000
# Part of what "the validation split" means: another seed would leak old validation images into training.
VALIDATION_SEED = 2020


def split_validation(
    train: AnyImages, count: int = VALIDATION_IMAGES, seed: int = VALIDATION_SEED
) -> tuple[AnyImages, AnyImages]:
    """Split `train` into a training and a validation part, stratified: each class keeps its share, to one image.

    Args:
        train: the whole training set, N images.
        count: images of the validation part, 1 to N - 1.
        seed: of the choice; the same seed gives the same split.

    Returns:
        The training and the validation part; each keeps the order of `train`.
    """
    held_out = hold_out(train.labels.cpu(), count, seed).to(train.labels.device)
    base = train.name.removesuffix(" train")
    return train.subset(~held_out, f"{base} train"), train.subset(held_out, f"{base} validation")


def hold_out(labels: Tensor, count: int, seed: int = VALIDATION_SEED) -> Tensor:
    """Which of N images to hold out: `count` of them, each class by its share, to one image.

    Args:
        labels: int64, (N,), on the CPU.
        count: 1 to N - 1.
        seed: of the choice.

    Returns:
        Booleans, (N,).
    """
    if not 0 < count < len(labels):
        raise ArgumentError("count", f"1 to {len(labels) - 1} validation images", count)
    order = torch.randperm(len(labels), generator=seeded(seed))
    # Sorting a shuffled set by class, and taking evenly spaced places in it, gives each class its share.
    by_class = order[labels[order].argsort(stable=True)]
    places = torch.arange(count) * len(labels) // count
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[by_class[places]] = True
    return held_out
