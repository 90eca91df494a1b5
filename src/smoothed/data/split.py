"""Validation splits, held out of the training set; all choices are made on them and none on the test set."""

import torch
from torch import Tensor

from smoothed.data.images import AnyImages
from smoothed.errors import ArgumentError
from smoothed.rng.seeds import seeded

SPLITS = ("test", "validation", "train")

VALIDATION_IMAGES = 5000
# Other sets than CIFAR hold out one training image in this many, at most VALIDATION_IMAGES.
VALIDATION_DIVISOR = 10
# The seed defines the validation split; with another seed, old validation images would become training images.
VALIDATION_SEED = 2020


def default_validation_count(images: int) -> int:
    """Number of validation images to hold out of `images` training images: a tenth, at least 1 and at most 5,000."""
    return min(VALIDATION_IMAGES, max(1, images // VALIDATION_DIVISOR))


def split_validation(
    train: AnyImages, count: int = VALIDATION_IMAGES, seed: int = VALIDATION_SEED
) -> tuple[AnyImages, AnyImages]:
    """Split `train` into training and validation images, stratified by class.

    Args:
        train: whole training set of N images.
        count: number of validation images, 1 to N - 1.
        seed: seed of the random choice.

    Returns:
        The training and the validation images, both in the order of `train`. The share of each class is the same in
        both, up to one image.

    Raises:
        ArgumentError: `count` is out of range.
    """
    labels = train.labels
    held_out = hold_out(labels.cpu(), count, seed).to(labels.device)
    base = train.name.removesuffix(" train")
    return train.subset(~held_out, f"{base} train"), train.subset(held_out, f"{base} validation")


def hold_out(labels: Tensor, count: int, seed: int = VALIDATION_SEED) -> Tensor:
    """Choose `count` of N images at random, stratified by class up to one image.

    Args:
        labels: classes of the images, int64 (N,), on the CPU.
        count: number of images to choose, 1 to N - 1.
        seed: seed of the random choice.

    Returns:
        Whether each image is chosen, bool (N,).

    Raises:
        ArgumentError: `count` is out of range.
    """
    if not 0 < count < len(labels):
        raise ArgumentError("count", f"1 to {len(labels) - 1} validation images", count)
    order = torch.randperm(len(labels), generator=seeded(seed))
    # Evenly spaced images of a shuffled set that is sorted by class contain each class in proportion.
    by_class = order[labels[order].argsort(stable=True)]
    chosen = torch.arange(count) * len(labels) // count
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[by_class[chosen]] = True
    return held_out
