"""Random crop and flip of a batch, computed on the device of the batch."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.nn import functional

PADDING = 4


@dataclass(frozen=True)
class Augmentation:
    """The crop and the flip of each of N images, which can be applied to other tensors of the same images.

    Attributes:
        tops: first row of each crop in the padded image, (N,), from 0 to twice the padding.
        lefts: first column of each crop, (N,).
        flips: whether each image is flipped after the crop, (N,).
        padding: width of the zero padding on each side, in pixels.
    """

    tops: Int[Tensor, " n"]
    lefts: Int[Tensor, " n"]
    flips: Bool[Tensor, " n"]
    padding: int = PADDING

    def apply(self, images: Shaped[Tensor, "n c h w"]) -> Shaped[Tensor, "n c h w"]:
        """Return the augmented images, of the same shape and dtype; pixels from outside an image are 0."""
        count, _, height, width = images.shape
        padded = functional.pad(images, [self.padding] * 4)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        cropped = windows[torch.arange(count, device=images.device), :, self.tops, self.lefts]
        return self._flip(cropped)

    def undo(
        self, augmented: Shaped[Tensor, "n c h w"], originals: Shaped[Tensor, "n c h w"]
    ) -> Shaped[Tensor, "n c h w"]:
        """Return `originals` with the pixels of `augmented` at the places that they come from.

        Pixels of an original that lie outside its crop stay. `apply` of the result gives `augmented` again, except for
        pixels from outside the original, which are 0.
        """
        count, _, height, width = originals.shape
        padded = functional.pad(originals, [self.padding] * 4)
        device = originals.device
        rows = self.tops[:, None, None] + torch.arange(height, device=device)[:, None]
        columns = self.lefts[:, None, None] + torch.arange(width, device=device)
        images = torch.arange(count, device=device)[:, None, None]
        padded[images, :, rows, columns] = self._flip(augmented).permute(0, 2, 3, 1)
        inside = slice(self.padding, -self.padding) if self.padding else slice(None)
        return padded[:, :, inside, inside]

    def rows(self, rows: slice) -> "Augmentation":
        """Return the crops and flips of some of the images."""
        return Augmentation(self.tops[rows], self.lefts[rows], self.flips[rows], self.padding)

    def _flip(self, images: Tensor) -> Tensor:
        return torch.where(self.flips.view(-1, 1, 1, 1), images.flip(3), images)


def draw_augmentation(
    generator: torch.Generator,
    count: int,
    padding: int = PADDING,
    *,
    device: torch.device | str = "cpu",
    first: int = 0,
    total: int | None = None,
) -> Augmentation:
    """Draw crops at random positions of zero-padded copies, and flips with probability 1/2.

    Args:
        generator: generator on the CPU, so that crops and flips are the same on every device.
        count: number of images, N.
        padding: width of the zero padding on each side, in pixels.
        device: device of the images.
        first: index of the first of these images in a batch of `total` images. Each image gets the crop and the flip
            that it would get in the whole batch.
        total: number of images of the whole batch; None for N.
    """
    total = count if total is None else total
    rows = slice(first, first + count)
    tops, lefts = torch.randint(2 * padding + 1, (2, total), generator=generator)[:, rows].to(device)
    flips = torch.rand(total, generator=generator)[rows].lt(0.5).to(device)
    return Augmentation(tops, lefts, flips, padding)


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
        generator: see `draw_augmentation`, as for the other arguments.
        padding: width of the zero padding on each side, in pixels.
        first: index of the first of these images in a batch of `total` images.
        total: number of images of the whole batch; None for N.

    Returns:
        Augmented images of the same shape and dtype.
    """
    drawn = draw_augmentation(generator, len(images), padding, device=images.device, first=first, total=total)
    return drawn.apply(images)
