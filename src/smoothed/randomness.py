"""Where noise comes from: fresh from a generator, or a function of a key.

A `Source` hands out standard normals. Two kinds exist. `Fresh` draws them from a `torch.Generator`, so two passes
differ. `Keyed` makes them a function of (seed, draw, image, layer), so the same draw of the same image meets the same
noise whatever the batch, the chunk or the order of the work.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from smoothed.errors import ArgumentError

_MASK = (1 << 64) - 1


def mix(*keys: int) -> int:
    """A 63-bit seed that is a function of `keys` and of their order (SplitMix64's finaliser, chained).

    Torch's CPU generator keeps the low 32 bits of a seed, so there two keys share a stream with probability 2^-32.
    """
    state = 0
    for key in keys:
        state = (state + key + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def seed_from(generator: torch.Generator) -> int:
    """A 63-bit seed drawn from `generator`, which advances by one draw."""
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device).item())


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` that starts at `seed`."""
    return torch.Generator(device).manual_seed(seed)


@runtime_checkable
class Source(Protocol):
    """Hands out standard normals to noise, by layer: 0 is the input, network layers count from 1."""

    def shared(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """Normals of `shape` that the whole batch shares, on `like`'s device and of its dtype."""
        ...

    def rows(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """Normals of `shape` whose first dimension runs over the batch: each row has its own."""
        ...


class Fresh:
    """Normals from `generator`, or from torch's default one when None, as `torch.nn.Dropout` draws its masks."""

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def shared(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.shared`."""
        del layer
        device = like.device if self.generator is None else self.generator.device
        return torch.randn(tuple(shape), generator=self.generator, device=device, dtype=like.dtype).to(like.device)

    rows = shared


class Keyed:
    """Normals that are a function of (seed, draw, layer) and, for rows, of the image.

    Args:
        seed: any integer.
        draws: the draw of each row of the batch, or one number for all of them.
        images: the image of each row; None numbers the rows 0, 1, ...
    """

    def __init__(self, seed: int, draws: int | Sequence[int] = 0, images: Sequence[int] | None = None) -> None:
        self.seed = seed
        self.draws = draws
        self.images = images

    def shared(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.shared`. All rows must belong to one draw."""
        draw = self.draws if isinstance(self.draws, int) else self.draws[0]
        generator = seeded(mix(self.seed, draw, layer), like.device)
        return torch.randn(tuple(shape), generator=generator, device=like.device, dtype=like.dtype)

    def rows(self, layer: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """See `Source.rows`.

        Raises:
            ArgumentError: the first dimension is not the batch's, so that no row is an image's.
        """
        if self.images is not None and shape[0] != len(self.images):
            raise ArgumentError(
                "model",
                f"activations with noise whose first dimension is the batch's, {len(self.images)}",
                f"{shape[0]} rows in noise layer {layer}",
                "put the noise on weights, or on layers that keep the batch first",
            )
        normals = torch.empty(tuple(shape), device=like.device, dtype=like.dtype)
        for row, generator in zip(normals, self.generators(layer, len(normals), like.device), strict=True):
            row.normal_(generator=generator)
        return normals

    def generators(self, layer: int, count: int, device: torch.device) -> Iterator[torch.Generator]:
        """One generator a row, seeded by (seed, draw, layer, image). The same object is reseeded for each row."""
        generator = torch.Generator(device)
        for row in range(count):
            draw = self.draws if isinstance(self.draws, int) else self.draws[row]
            image = row if self.images is None else self.images[row]
            yield generator.manual_seed(mix(self.seed, draw, layer, image))
