"""Mean and standard deviation of the channels of a data set, for the normalisation layer of a network."""

import torch

from smoothed.data.images import Images
from smoothed.errors import DataError
from smoothed.utils.checks import check_positive

CHUNK = 50

Channels = tuple[float, float, float]
"""One number for each of the channels red, green and blue."""


def channel_statistics(images: Images, count: int = 1000) -> tuple[Channels, Channels]:
    """Compute mean and standard deviation of each channel over the pixels of `count` evenly spaced images.

    Args:
        images: images with three channels.
        count: number of images to read; a smaller set is read completely.

    Returns:
        Means and standard deviations (population formula) in pixel units of [0, 1].

    Raises:
        DataError: the set is empty, or its images do not have three channels.
        ArgumentError: `count` is less than 1.
    """
    count = min(check_positive(count, "count"), len(images))
    if not count:
        raise DataError(f"{images.name}: expected at least one image, got none")
    indices = torch.arange(count) * len(images) // count
    sums, squares, pixels = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), 0
    for batch, _ in images.load(indices.split(CHUNK)):
        if batch.shape[1] != 3:
            raise DataError(f"{images.name}: expected images of 3 channels, got {batch.shape[1]}")
        values = batch.long()
        sums += values.sum((0, 2, 3)).cpu()
        squares += values.square().sum((0, 2, 3)).cpu()
        pixels += values[:, 0].numel()
    # The sums are integers, so that a small deviation is not lost to rounding.
    moments = [(total / pixels, square / pixels) for total, square in zip(sums.tolist(), squares.tolist(), strict=True)]
    red, green, blue = ((mean / 255, max(0.0, square - mean**2) ** 0.5 / 255) for mean, square in moments)
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])
