"""Random numbers by a counter-based generator: each is a function of a key and of its place, and of nothing else.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) makes 64 bits of a key and a place; a law makes a number of them: a
normal by Box and Muller's transform (1958), a uniform one, or one of Laplace's law. All of it is tensor operations,
which need no state, run on every core and device, and can be compiled (`compile_numbers`): then a normal takes a
quarter of the time of torch's own, which come one after another from one core.
"""

import math
from collections.abc import Callable
from functools import cache, lru_cache, partial
from types import FunctionType

import torch
from jaxtyping import Float, Int
from torch import Tensor

# What numbers of a key depend on: another name for every change of them.
GENERATOR = "SplitMix64: Box-Muller, uniform of 24 or 53 bits, signed exponential"

# SplitMix64's constants, as signed integers.
GAMMA = 0x9E3779B97F4A7C15 - 2**64
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))
_LAST_SHIFT = 31

# Numbers made at a time where nothing is compiled. On a CPU, what is in between them stays in its caches.
_AT_A_TIME = {"cpu": 2**18}
_AT_A_TIME_ELSEWHERE = 2**24

_LOW = 2**32 - 1
_UNIT = 2.0**-32

Law = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""What makes a number of mean 0 and deviation 1 of 64 bits: it fills the first tensor, float32 or float64, from the
second, int64. It may write to the third, int64 too, which spares it memory. All are of one shape."""

# Whether torch.compile makes the numbers of this process: `compile_numbers` says so.
_compiles = {"on": False}


def compile_numbers(*, on: bool = True) -> None:
    """Let torch.compile make the random numbers of this process from now on: the same numbers, to rounding.

    The first numbers of each law then wait for the compiler, which takes some 10 seconds. Where there is none, or one
    that gives other numbers, they are made as before.

    Args:
        on: False goes back to numbers without a compiler.
    """
    _compiles["on"] = on


def splitmix64(states: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """SplitMix64's finaliser: a bijection of 64 bits in which each bit depends on all."""
    for shift, multiplier in _ROUNDS:
        states = (states ^ _shifted(states, shift)) * multiplier
    return states ^ _shifted(states, _LAST_SHIFT)


@lru_cache(maxsize=8)
def places(count: int, device: torch.device) -> Int[Tensor, " count"]:
    """The first places of a row, to be added to its key: multiples of SplitMix64's constant."""
    with torch.inference_mode(mode=False):
        return torch.arange(1, count + 1, device=device) * GAMMA


@lru_cache(maxsize=8)
def places_channels_last(channels: int, pixels: int, device: torch.device) -> Int[Tensor, " count"]:
    """The places of images (C, H, W), H * W pixels each, in the order in which they lie with their channels last."""
    with torch.inference_mode(mode=False):
        return places(channels * pixels, device).view(channels, pixels).t().reshape(-1)


Affine = tuple[Tensor, Tensor]
"""What the numbers of each row are multiplied with, (P,), and what is then added: (P,) to each row, or (R, P)."""


def normal(made: Float[Tensor, "*n"], bits: Int[Tensor, "*n"], spare: Tensor | None = None) -> Float[Tensor, "*n"]:
    """The standard normal law (`Law`), by Box and Muller's transform; none is beyond 6.7."""
    angle = torch.bitwise_and(bits, _LOW, out=spare).to(made.dtype).mul_(2 * math.pi * _UNIT)
    return _log(made, bits, spare).mul_(-2).sqrt_().mul_(angle.cos_())


def uniform(made: Float[Tensor, "*n"], bits: Int[Tensor, "*n"], spare: Tensor | None = None) -> Float[Tensor, "*n"]:
    """The uniform law on [-sqrt(3), sqrt(3)] (`Law`): the middle of one of 2^24 equal cells; in float64, of 2^53.

    These are all that k + 1/2 can say without rounding. Half of them are below 0, none is 0, and none is beyond the
    ends; rounded to another dtype, the outermost are where the ends are.
    """
    digits = 53 if made.dtype == torch.float64 else 24
    cell = torch.bitwise_right_shift(bits, 64 - digits, out=spare)  # with its sign: -2^(digits - 1) is the first
    return made.copy_(cell).add_(0.5).mul_(math.sqrt(3) * 2.0 ** (1 - digits))


def laplace(made: Float[Tensor, "*n"], bits: Int[Tensor, "*n"], spare: Tensor | None = None) -> Float[Tensor, "*n"]:
    """Laplace's law of deviation 1 (`Law`): an exponential of 32 bits, the sign by another; none is beyond 15.7."""
    sign = torch.bitwise_and(bits, 1, out=spare).to(made.dtype).mul_(math.sqrt(2)).sub_(math.sqrt(0.5))
    return _log(made, bits, spare).mul_(sign)


def _log(made: Tensor, bits: Tensor, spare: Tensor | None) -> Tensor:
    """The logarithm of a uniform number in (0, 1], by the upper 32 bits: never infinite."""
    return made.copy_(_shifted(bits, 32, out=spare)).add_(1).mul_(_UNIT).log_()


def normals(
    keys: Int[Tensor, " r"],
    places: Int[Tensor, " p"],
    dtype: torch.dtype = torch.float32,
    affine: Affine | None = None,
) -> Float[Tensor, "r p"]:
    """Independent standard normals: `numbers` of the law `normal`."""
    return numbers(normal, keys, places, dtype, affine)


def numbers(
    law: Law,
    keys: Int[Tensor, " r"],
    places: Int[Tensor, " p"],
    dtype: torch.dtype = torch.float32,
    affine: Affine | None = None,
) -> Float[Tensor, "r p"]:
    """Independent numbers of mean 0 and deviation 1, each a function of the key of its row and of its place.

    What counts is the sum of the two, so keys must be hashes: rows are then pieces of one sequence of 2^64 numbers that
    begin anywhere in it. In float64 the numbers are those of float32 with less rounding, in other dtypes those of
    float32, rounded. The laws make theirs of the same bits: numbers of two laws need different keys to be independent.

    Args:
        law: `normal`, `uniform` or `laplace`.
        keys: int64, of any value.
        places: int64, of `places`, or others.
        dtype: a floating one.
        affine: what rows are multiplied with, and what is then added to them.

    Returns:
        (R, P), on the keys' device.
    """
    kind = keys.device.type
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    if affine is not None:
        scale, added = affine
        affine = scale.to(exact), (added.flatten() if len(keys) == 1 else added).to(exact)
    compiled = _compiles["on"] and len(keys) and len(places)
    form = len(keys) == 1, None if affine is None else affine[1].ndim
    make = _compiled(law, kind, exact, *form) if compiled else partial(_in_parts, law)
    with torch.no_grad(), torch.autocast(kind, enabled=False):
        return make(keys, places, exact, affine).view(len(keys), len(places)).to(dtype)


def _at_once(
    law: Law, keys: Int[Tensor, " r"], places: Int[Tensor, " p"], dtype: torch.dtype, affine: Affine | None = None
) -> Float[Tensor, "..."]:
    # One row is a vector: of a matrix, compiled, the cores share rows alone.
    bits = splitmix64((keys if len(keys) == 1 else keys[:, None]) + places)
    made = law(torch.empty_like(bits, dtype=dtype), bits, None)
    return made if affine is None else made * affine[0] + affine[1]


def _in_parts(
    law: Law, keys: Int[Tensor, " r"], places: Int[Tensor, " p"], dtype: torch.dtype, affine: Affine | None = None
) -> Float[Tensor, "r p"]:
    """`_at_once`, a part at a time, and what is in between always in the same memory."""
    most = _AT_A_TIME.get(keys.device.type, _AT_A_TIME_ELSEWHERE)
    made = torch.empty(len(keys), len(places), device=keys.device, dtype=dtype)
    rows = max(1, most // max(1, len(places)))
    scratch = torch.empty(2, min(rows, len(keys)), min(most, len(places)), device=keys.device, dtype=torch.int64)
    scale, added = (None, None) if affine is None else (affine[0], affine[1].expand(made.shape))
    for row in range(0, len(keys), rows):
        for start in range(0, len(places), most):
            part = made[row : row + rows, start : start + most]
            bits, other = scratch[:, : part.shape[0], : part.shape[1]].unbind()
            torch.add(keys[row : row + rows, None], places[start : start + most], out=bits)
            for shift, multiplier in _ROUNDS:
                bits.bitwise_xor_(_shifted(bits, shift, out=other)).mul_(multiplier)
            bits.bitwise_xor_(_shifted(bits, _LAST_SHIFT, out=other))
            law(part, bits, other)
            if scale is not None and added is not None:
                part.mul_(scale[start : start + most]).add_(added[row : row + rows, start : start + most])
    return made


def _shifted(states: Tensor, shift: int, out: Tensor | None = None) -> Tensor:
    """To the right, zeros coming in: torch's own shift of signed integers repeats the sign."""
    shifted = torch.bitwise_right_shift(states, shift, out=out)
    return torch.bitwise_and(shifted, (1 << 64 - shift) - 1, out=out)


Maker = Callable[[Tensor, Tensor, torch.dtype, Affine | None], Tensor]


def _own_at_once(law: Law) -> Maker:
    """`_at_once` of a law, of code of its own.

    torch.compile gives code up after 8 forms, and counts whether each tensor was made in inference mode.
    """

    def make(keys: Tensor, places: Tensor, dtype: torch.dtype, affine: Affine | None) -> Tensor:
        return _at_once(law, keys, places, dtype, affine)

    return FunctionType(make.__code__.replace(), make.__globals__, law.__name__, None, make.__closure__)


@cache
def _compiled(law: Law, kind: str, dtype: torch.dtype, one_row: bool, added: int | None) -> Maker:
    """`_at_once` through torch.compile; `_in_parts` where there is no compiler, or one that gives other numbers.

    Args:
        law: the law.
        kind: of device.
        dtype: float32 or float64.
        one_row: whether there is one key.
        added: the dimensions of what is added, 1 where there is one key; None where nothing is.
    """
    keys, where = torch.arange(1 if one_row else 5, device=kind), places(1000, torch.device(kind))
    shape = (len(keys), 1000) if added == 2 else (1000,)
    affine = (
        torch.full((1000,), 0.5, device=kind, dtype=dtype),
        torch.linspace(-1, 1, math.prod(shape), device=kind, dtype=dtype).view(shape),
    )
    case = keys, where, dtype, None if added is None else affine
    in_parts = partial(_in_parts, law)
    try:
        compiled = torch.compile(_own_at_once(law), dynamic=True)
        with torch.no_grad(), torch.autocast(kind, enabled=False):
            ours, own = compiled(*case), in_parts(*case)
    except Exception:  # whatever goes wrong in a compiler: the numbers can be made without
        return in_parts
    return compiled if torch.allclose(ours, own.view(ours.shape), rtol=1e-4, atol=1e-5) else in_parts
