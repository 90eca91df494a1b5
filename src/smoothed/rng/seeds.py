"""Seeds: functions of keys, so that everything random can be named and drawn again."""

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
    """A 63-bit seed that is a function of `keys` and of their order (SplitMix64's finaliser, chained).

    Torch's CPU generator keeps the low 32 bits of a seed, so there two keys share a stream with probability 2^-32.
    """
    return int(reduce(_absorb, keys, 0)) >> 1


def _absorb(state: _Word, key: _Word) -> _Word:
    state = (state + key + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def mixed(*keys: int | Sequence[int] | Tensor) -> Int[Tensor, " n"]:
    """The same for many rows at once, all 64 bits: keys are numbers for all rows, or (N,) or (1,), one a row.

    It is on the CPU: NumPy makes keys of the some hundred rows of a pass in less than half of the time of torch.
    """
    state = reduce(_absorb, map(_word, keys), 0)
    return torch.from_numpy(np.atleast_1d(np.asarray(state, np.uint64)).view(np.int64))


def _word(key: int | Sequence[int] | Tensor) -> _Word:
    """As numbers without a sign, modulo 2^64."""
    if isinstance(key, int):
        return key & _MASK
    key = key.cpu() if isinstance(key, Tensor) else key
    return np.atleast_1d(np.asarray(key, np.int64)).view(np.uint64)


def seed_from(generator: torch.Generator) -> int:
    """A 63-bit seed drawn from `generator`, which advances by one draw."""
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device).item())


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` that starts at `seed`."""
    return torch.Generator(device).manual_seed(seed)
