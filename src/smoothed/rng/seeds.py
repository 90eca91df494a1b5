"""Seeds derived from integer keys, so that every random stream can be reproduced from its key."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

_MASK = (1 << 64) - 1
_Word = int | npt.NDArray[np.integer]


def mix(*keys: int) -> int:
    """Derive a 63-bit seed from `keys` and their order (chained finaliser of SplitMix64).

    Torch's CPU generator uses the low 32 bits of a seed only, so two keys share a stream there with probability 2^-32.
    """
    return int(reduce(_absorb, keys, 0)) >> 1


def _absorb(state: _Word, key: _Word) -> _Word:
    state = (state + key + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def mix_rows(*keys: int | Sequence[int] | Tensor) -> Int[Tensor, " n"]:
    """Derive a 64-bit key for each of N rows, in the way of `mix`.

    Args:
        keys: integers that apply to all rows, or sequences or tensors of shape (N,), one integer per row; shape (1,)
            applies to all rows.

    Returns:
        Keys, (N,) int64, or (1,) if no argument has one integer per row. They are computed by NumPy on the CPU, which
        takes less than half the time of torch for the few hundred rows of a pass.
    """
    state = reduce(_absorb, map(_word, keys), 0)
    return torch.from_numpy(np.atleast_1d(np.asarray(state, np.uint64)).view(np.int64))


def _word(key: int | Sequence[int] | Tensor) -> _Word:
    """Convert to unsigned integers modulo 2^64."""
    if isinstance(key, int):
        return key & _MASK
    key = key.cpu() if isinstance(key, Tensor) else key
    return np.atleast_1d(np.asarray(key, np.int64)).view(np.uint64)


def seed_from(generator: torch.Generator) -> int:
    """Draw a 63-bit seed from `generator`, which advances by one draw."""
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device).item())


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Create a generator on `device` with the given seed."""
    return torch.Generator(device).manual_seed(seed)
