"""Mean and standard deviation of the channels of a data set, for the normalisation layer of a network."""

import torch

from smoothed.data.images import Images
from smoothed.errors import DataError
from smoothed.utils.checks import check_positive

CHUNK = 50

Channels = tuple[float, ...]
"""One number for each channel, such as red, green and blue."""


def channel_statistics(images: Images, count: int = 1000) -> tuple[Channels, Channels]:
    """Compute mean and standard deviation of each channel over the pixels of `count` evenly spaced images.

    Args:
        images: images with any number of channels.
        count: number of images to read; a smaller set is read completely.

    Returns:
        Means and standard deviations (population formula) in pixel units of [0, 1], one per channel.

    Raises:
        DataError: the set is empty.
        ArgumentError: `count` is less than 1.
    """
    count = min(check_positive(count, "count"), len(images))
    if not count:
        raise DataError(f"{images.name}: expected at least one image, got none")
    indices = torch.arange(count) * len(images) // count
    sums = squares = shift = torch.zeros(())
    scale, pixels = 1, 0
    for batch, _ in images.load(indices.split(CHUNK)):
        if not pixels:
            scale = 255 if batch.dtype == torch.uint8 else 1
            # Sums of integers are exact. Floats are counted from the first pixel, so that a small standard deviation is
            # not lost to rounding.
            shift = batch[:1, :, :1, :1].double() * (scale == 1)
        values = batch.double() - shift
        sums = sums + values.sum((0, 2, 3)).cpu()
        squares = squares + values.square().sum((0, 2, 3)).cpu()
        pixels += values[:, 0].numel()
    centred = sums / pixels
    deviations = (squares / pixels - centred.square()).clamp(min=0).sqrt() / scale
    means = (centred + shift.flatten().cpu()) / scale
    return tuple(means.tolist()), tuple(deviations.tolist())
