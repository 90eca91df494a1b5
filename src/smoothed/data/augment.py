"""Random crop and flip of a batch, computed on the device of the batch."""

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn import functional

PADDING = 4


def augment(
    images: Shaped[Tensor, "n c h w"],
    generator: torch.Generator,
    padding: int = PADDING,
    *,
    first: int = 0,
    total: int | None = None,
) -> Shaped[Tensor, "n c h w"]:
    """Crop each image at a random position of its zero-padded copy, and flip it with probability 1/2.

    Args:
        images: images (N, C, H, W) of any dtype.
        generator: generator on the CPU, so that crops and flips are the same on every device.
        padding: width of the zero padding on each side, in pixels.
        first: index of the first of these images in a batch of `total` images. Each image gets the crop and the flip
            that it would get in the whole batch.
        total: number of images of the whole batch; None for N.

    Returns:
        Augmented images of the same shape and dtype.
    """
    count, _, height, width = images.shape
    total = count if total is None else total
    rows = slice(first, first + count)
    tops, lefts = torch.randint(2 * padding + 1, (2, total), generator=generator)[:, rows].to(images.device)
    flips = torch.rand(total, generator=generator)[rows].lt(0.5).to(images.device)
    padded = functional.pad(images, [padding] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    cropped = windows[torch.arange(count, device=images.device), :, tops, lefts]
    return torch.where(flips.view(-1, 1, 1, 1), cropped.flip(3), cropped)
