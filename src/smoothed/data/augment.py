"""Random crop and flip, for a whole batch at once on its own device."""

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
    """Crop each image at a random place of its zero-padded copy, and flip every second one, on average.

    Args:
        images: (N, C, H, W), any dtype.
        generator: on the CPU; decides places and flips, the same on every device.
        padding: pixels of zeros on each side.
        first: where these images begin in a batch of `total`, of which they are a part: each gets what it would get
            there.
        total: images of that batch; N when None.

    Returns:
        Images of the same shape and dtype.
    """
    count, _, height, width = images.shape
    total = count if total is None else total
    mine = slice(first, first + count)
    tops, lefts = torch.randint(2 * padding + 1, (2, total), generator=generator)[:, mine].to(images.device)
    flips = torch.rand(total, generator=generator)[mine].lt(0.5).to(images.device)
    padded = functional.pad(images, [padding] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    cropped = windows[torch.arange(count, device=images.device), :, tops, lefts]
    return torch.where(flips.view(-1, 1, 1, 1), cropped.flip(3), cropped)
