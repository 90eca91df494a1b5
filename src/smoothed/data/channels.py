"""Mean and deviation of a set's channels, which a network's first layer normalises by."""

import torch

from smoothed.data.images import Images
from smoothed.errors import DataError
from smoothed.utils.checks import check_positive

CHUNK = 50

Channels = tuple[float, float, float]


def channel_statistics(images: Images, count: int = 1000) -> tuple[Channels, Channels]:
    """Mean and deviation of each of three channels, over the pixels of `count` evenly spaced images.

    Args:
        images: of three channels.
        count: how many to read; all of them where there are fewer.

    Returns:
        Means and deviations (those of the pixels, not of an estimate) of pixels in [0, 1].

    Raises:
        DataError: an empty set, or images that don't have three channels.
    """
    count = min(check_positive(count, "count"), len(images))
    if not count:
        raise DataError(f"{images.name}: expected at least one image, got none")
    places = torch.arange(count) * len(images) // count
    sums, squares, pixels = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), 0
    for batch, _ in images.load(places.split(CHUNK)):
        if batch.shape[1] != 3:
            raise DataError(f"{images.name}: expected images of 3 channels, got {batch.shape[1]}")
        values = batch.long()
        sums += values.sum((0, 2, 3)).cpu()
        squares += values.square().sum((0, 2, 3)).cpu()
        pixels += values[:, 0].numel()
    # Whole numbers up to here, so that nothing is lost where the deviation is small.
    moments = [(total / pixels, square / pixels) for total, square in zip(sums.tolist(), squares.tolist(), strict=True)]
    red, green, blue = ((mean / 255, max(0.0, square - mean**2) ** 0.5 / 255) for mean, square in moments)
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])
