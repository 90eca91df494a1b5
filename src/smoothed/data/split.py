"""Hold a validation split out of a training set: every choice is made on it, never on the test set."""

import torch

from smoothed.data.imageset import ImageSet
from smoothed.errors import ArgumentError
from smoothed.randomness import seeded

VALIDATION_IMAGES = 5000
# Part of what "the validation split" means: another seed would leak old validation images into training.
VALIDATION_SEED = 2020


def split_validation(
    train: ImageSet, count: int = VALIDATION_IMAGES, seed: int = VALIDATION_SEED
) -> tuple[ImageSet, ImageSet]:
    """Split `train` into a training and a validation part, stratified: each class keeps its share, to one image.

    Args:
        train: the whole training set, N images.
        count: images of the validation part, 1 to N - 1.
        seed: of the choice; the same seed gives the same split.

    Returns:
        The training and the validation part; each keeps the order of `train`.
    """
    if not 0 < count < len(train):
        raise ArgumentError("count", f"1 to {len(train) - 1} validation images", count)
    generator = seeded(seed)
    labels = train.labels.cpu()
    order = torch.randperm(len(train), generator=generator)
    # Sorting a shuffled set by class, and taking evenly spaced places in it, gives each class its share.
    by_class = order[labels[order].argsort(stable=True)]
    places = torch.arange(count) * len(train) // count
    held_out = torch.zeros(len(train), dtype=torch.bool)
    held_out[by_class[places]] = True
    base = train.name.removesuffix(" train")
    held_out = held_out.to(train.images.device)
    return train.subset(~held_out, f"{base} train"), train.subset(held_out, f"{base} validation")
