"""Random numbers for the rows of a batch that do not depend on how the batch is divided."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from smoothed.rng.seeds import mix


class RowGenerator(torch.Generator):
    """A random generator for the rows of a batch whose numbers do not depend on how the batch is divided.

    At the c-th request to `fill_`, row i of the whole batch gets numbers that are a function of (seed, c, i). Processes
    that divide a batch therefore draw the same numbers as a single process, each for its own rows. Functions of torch
    take it as a `torch.Generator`, too; their numbers are a function of (seed, first).

    Args:
        seed: any integer.
        first: index in the whole batch of the first row for which numbers are requested.
        device: device on which functions of torch may use the generator; `fill_` fills tensors of any device.
    """

    # Number of rows drawn per seeded generator; larger blocks need fewer seedings but discard more rows at the ends.
    BLOCK = 64

    def __new__(cls, seed: int, first: int = 0, device: torch.device | str = "cpu") -> Self:  # noqa: ARG004
        """Create the generator of torch; it takes the device alone."""
        return super().__new__(cls, device)  # pyright: ignore[reportCallIssue] - missing from torch's stubs

    def __init__(self, seed: int, first: int = 0, device: torch.device | str = "cpu") -> None:  # noqa: ARG002
        self.row_seed = seed
        self.first = first
        self.requests = 0
        self.manual_seed(mix(seed, 0, first))

    def snapshot(self) -> Callable[[], None]:
        """Return a function that restores the current position in the random stream."""
        requests, state = self.requests, self.get_state()

        def restore() -> None:
            self.requests = requests
            self.set_state(state)

        return restore

    def fill_(self, tensor: Tensor, draw: Callable[[Tensor, torch.Generator], object]) -> Tensor:
        """Fill `tensor` (N, ...) in place and return it.

        Args:
            tensor: the rows to fill, beginning with row `first` of the whole batch.
            draw: function that fills a block of rows in place from a generator on the block's device.
        """
        self.requests += 1
        generator = torch.Generator(tensor.device)
        start, stop = self.first, self.first + len(tensor)
        for begin in range(start - start % self.BLOCK, stop, self.BLOCK):
            block = torch.empty((self.BLOCK, *tensor.shape[1:]), device=tensor.device, dtype=tensor.dtype)
            draw(block, generator.manual_seed(mix(self.row_seed, self.requests, begin)))
            low, high = max(begin, start), min(begin + self.BLOCK, stop)
            tensor[low - start : high - start] = block[low - begin : high - begin]
        return tensor


Randomness = torch.Generator | None
"""The source of random rows: a generator on their device, such as a `RowGenerator`, or torch's default one (None)."""


def uniform_(tensor: Tensor, low: float, high: float, randomness: Randomness) -> Tensor:
    """Fill `tensor` (N, ...) in place with uniform numbers from [low, high) and return it."""
    if isinstance(randomness, RowGenerator):
        return randomness.fill_(tensor, lambda block, generator: block.uniform_(low, high, generator=generator))
    return tensor.uniform_(low, high, generator=randomness)


def normal_(tensor: Tensor, randomness: Randomness) -> Tensor:
    """Fill `tensor` (N, ...) in place with standard normal numbers and return it."""
    if isinstance(randomness, RowGenerator):
        return randomness.fill_(tensor, lambda block, generator: block.normal_(generator=generator))
    return tensor.normal_(generator=randomness)
