"""Random numbers for the rows of a batch that follow the rows, wherever the batch is cut."""

from collections.abc import Callable

import torch
from torch import Tensor

from smoothed.rng.seeds import mix


class Rows:
    """Random numbers for the rows of a batch that follow the rows, wherever the batch is cut.

    Row i of the whole batch gets, at the c-th request, numbers that are a function of (seed, c, i). So processes that
    share a batch draw what one process would, each for its own rows.

    Args:
        seed: any integer.
        first: the place in the whole batch of the first row that is asked for.
    """

    # Rows are drawn this many at a time: a generator is seeded once a block, and no more than a block is thrown away.
    BLOCK = 64

    def __init__(self, seed: int, first: int = 0) -> None:
        self.seed = seed
        self.first = first
        self.requests = 0

    def remember(self) -> Callable[[], None]:
        """A function that takes the numbers back to where they are now."""
        requests = self.requests

        def restore() -> None:
            self.requests = requests

        return restore

    def fill_(self, tensor: Tensor, draw: Callable[[Tensor, torch.Generator], object]) -> Tensor:
        """Fill `tensor` (rows first) in place: `draw` fills a block of rows from a generator on its device."""
        self.requests += 1
        generator = torch.Generator(tensor.device)
        start, stop = self.first, self.first + len(tensor)
        for begin in range(start - start % self.BLOCK, stop, self.BLOCK):
            block = torch.empty((self.BLOCK, *tensor.shape[1:]), device=tensor.device, dtype=tensor.dtype)
            draw(block, generator.manual_seed(mix(self.seed, self.requests, begin)))
            low, high = max(begin, start), min(begin + self.BLOCK, stop)
            tensor[low - start : high - start] = block[low - begin : high - begin]
        return tensor


Randomness = torch.Generator | Rows | None
"""Where random rows come from: a generator on their device, torch's default one (None), or `Rows`."""


def uniform_(tensor: Tensor, low: float, high: float, randomness: Randomness) -> Tensor:
    """Fill `tensor`, (N, ...), with uniform numbers in place."""
    if isinstance(randomness, Rows):
        return randomness.fill_(tensor, lambda block, generator: block.uniform_(low, high, generator=generator))
    return tensor.uniform_(low, high, generator=randomness)


def normal_(tensor: Tensor, randomness: Randomness) -> Tensor:
    """Fill `tensor`, (N, ...), with standard normals in place."""
    if isinstance(randomness, Rows):
        return randomness.fill_(tensor, lambda block, generator: block.normal_(generator=generator))
    return tensor.normal_(generator=randomness)
