"""Standard normals by a counter-based generator: each is a function of a key and of its place, and of nothing else.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) makes 64 bits of a key and a place; Box and Muller's transform (1958)
makes a normal of them. All of it is tensor operations, which need no state, run on every core and device, and can be
compiled: then a number takes a quarter of the time of torch's own, which come one after another from one core.
"""

import math
from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

# What numbers of a key depend on: another name for every change of them.
GENERATOR = "SplitMix64, Box-Muller"

# SplitMix64's constants, as signed integers.
GAMMA = 0x9E3779B97F4A7C15 - 2**64
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64), (31, 1))

# Numbers that are made before the compiler is called: it takes about as long as they did.
COMPILE_AFTER = 10**9
# Numbers made at a time where nothing is compiled. On a CPU, what is in between them stays in its caches.
_AT_A_TIME = {"cpu": 2**18}
_AT_A_TIME_ELSEWHERE = 2**24

_LOW = 2**32 - 1
_UNIT = 2.0**-32
_made: Counter[str] = Counter()


def splitmix64(states: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """SplitMix64's finaliser: a bijection of 64 bits in which each bit depends on all."""
    for shift, multiplier in _ROUNDS:
        states = (states ^ _shifted(states, shift)) * multiplier
    return states


@lru_cache(maxsize=8)
def places(count: int, device: torch.device) -> Int[Tensor, " count"]:
    """The first places of a row, to be added to its key: multiples of SplitMix64's constant."""
    with torch.inference_mode(mode=False):
        return torch.arange(1, count + 1, device=device) * GAMMA


Affine = tuple[Tensor, Tensor]
"""What normals are multiplied with, and what is then added."""


def normals(
    keys: Int[Tensor, " r"],
    places: Int[Tensor, " p"],
    dtype: torch.dtype = torch.float32,
    affine: Affine | None = None,
) -> Float[Tensor, "r p"]:
    """Independent standard normals, each a function of the key of its row and of its place.

    What counts is the sum of the two, so keys must be hashes: rows are then pieces of one sequence of 2^64 numbers that
    begin anywhere in it. In float64 the numbers are those of float32 with less rounding; none is beyond 6.7.

    Args:
        keys: int64, of any value.
        places: int64, of `places`, or others.
        dtype: a floating one.
        affine: what every row is multiplied with, and what is then added to it: (P,) each, of that dtype.

    Returns:
        (R, P), on the keys' device. A program that asks for more than 10^9 numbers gets the others from torch.compile,
        if that works there: the same to rounding.
    """
    kind = keys.device.type
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    _made[kind] += len(keys) * len(places)
    make = _compiled(kind, exact) if _made[kind] > COMPILE_AFTER and len(keys) and len(places) else _in_parts
    with torch.no_grad(), torch.autocast(kind, enabled=False):
        return make(keys, places, exact, affine).view(len(keys), len(places)).to(dtype)


def _at_once(
    keys: Int[Tensor, " r"], places: Int[Tensor, " p"], dtype: torch.dtype, affine: Affine | None = None
) -> Float[Tensor, "..."]:
    # One row is a vector: of a matrix, compiled, the cores share rows alone.
    bits = splitmix64((keys if len(keys) == 1 else keys[:, None]) + places)
    radius = ((_shifted(bits, 32).to(dtype) + 1) * _UNIT).log().mul(-2).sqrt()
    made = ((bits & _LOW).to(dtype) * (2 * math.pi * _UNIT)).cos() * radius
    return made if affine is None else made * affine[0] + affine[1]


def _in_parts(
    keys: Int[Tensor, " r"], places: Int[Tensor, " p"], dtype: torch.dtype, affine: Affine | None = None
) -> Float[Tensor, "r p"]:
    """`_at_once`, a part at a time, and what is in between always in the same memory."""
    most = _AT_A_TIME.get(keys.device.type, _AT_A_TIME_ELSEWHERE)
    made = torch.empty(len(keys), len(places), device=keys.device, dtype=dtype)
    rows = max(1, most // max(1, len(places)))
    scratch = torch.empty(2, min(rows, len(keys)), min(most, len(places)), device=keys.device, dtype=torch.int64)
    for row in range(0, len(keys), rows):
        for start in range(0, len(places), most):
            part = made[row : row + rows, start : start + most]
            bits, other = scratch[:, : part.shape[0], : part.shape[1]].unbind()
            torch.add(keys[row : row + rows, None], places[start : start + most], out=bits)
            for shift, multiplier in _ROUNDS:
                bits.bitwise_xor_(_shifted(bits, shift, out=other)).mul_(multiplier)
            angle = torch.bitwise_and(bits, _LOW, out=other).to(dtype).mul_(2 * math.pi * _UNIT)
            part.copy_(_shifted(bits, 32, out=other)).add_(1).mul_(_UNIT).log_().mul_(-2).sqrt_().mul_(angle.cos_())
            if affine is not None:
                part.mul_(affine[0][start : start + most]).add_(affine[1][start : start + most])
    return made


def _shifted(states: Tensor, shift: int, out: Tensor | None = None) -> Tensor:
    """To the right, zeros coming in: torch's own shift of signed integers repeats the sign."""
    shifted = torch.bitwise_right_shift(states, shift, out=out)
    return torch.bitwise_and(shifted, (1 << 64 - shift) - 1, out=out)


@cache
def _compiled(kind: str, dtype: torch.dtype) -> Callable[[Tensor, Tensor, torch.dtype, Affine | None], Tensor]:
    """`_at_once` through torch.compile; `_in_parts` where there is no compiler, or one that gives other numbers."""
    some, where = torch.arange(5, device=kind), places(1000, torch.device(kind))
    affine = torch.full((1000,), 0.5, device=kind, dtype=dtype), torch.full((1000,), 0.25, device=kind, dtype=dtype)
    cases = [(keys, where, dtype, change) for keys in (some, some[:1]) for change in (None, affine)]
    try:
        compiled = torch.compile(_at_once, dynamic=True)
        with torch.no_grad(), torch.autocast(kind, enabled=False):
            pairs = [(compiled(*case), _in_parts(*case)) for case in cases]
    except Exception:  # whatever goes wrong in a compiler: the numbers can be made without
        return _in_parts
    same = all(torch.allclose(ours, own.view(ours.shape), rtol=1e-4, atol=1e-5) for ours, own in pairs)
    return compiled if same else _in_parts
