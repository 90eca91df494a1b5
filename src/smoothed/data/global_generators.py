"""The global random generators of torch, NumPy and Python, which augmentation in the user's data sets draws from."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from smoothed.rng.seeds import mix


@contextmanager
def restoring_generators() -> Iterator[None]:
    """Restore the states of the three generators after the block. Of torch's generators, only the CPU's is covered."""
    states = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.random.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def seed_generators(*keys: int) -> None:
    """Seed the three generators from `keys`; call it inside `restoring_generators`."""
    seed = mix(*keys)
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would also seed the generators of GPUs
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)
