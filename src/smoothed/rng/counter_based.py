"""Random numbers from a counter-based generator: each number is a function of a key and a position only.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) hashes key and position to 64 bits, and a law converts the bits to a
number: normal (Box and Muller, 1958), uniform or Laplace. The generator has no state and consists of tensor operations,
which use all cores of a device and can be compiled (`compile_numbers`). A compiled normal takes a quarter of the time
of one by torch's CPU generator, which computes them one after another on a single core.
"""

import math
from collections.abc import Callable
from functools import cache, lru_cache, partial
from types import FunctionType

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Identifies the numbers that a key yields: to be changed whenever these numbers change.
GENERATOR = "SplitMix64: Box-Muller, uniform of 24 or 53 bits, signed exponential"

# SplitMix64's constants, as signed integers.
GAMMA = 0x9E3779B97F4A7C15 - 2**64
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))
_LAST_SHIFT = 31

# Numbers computed at a time without a compiler, by device type; on a CPU, so few that intermediates stay in its caches.
_CHUNK_SIZES = {"cpu": 2**18}
_DEFAULT_CHUNK_SIZE = 2**24

_LOW_32_BITS = 2**32 - 1
_TWO_TO_MINUS_32 = 2.0**-32

Law = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""A function `law(output, bits, scratch)` that fills `output`, float32 or float64, with numbers of mean 0 and standard
deviation 1 and returns it. The numbers are computed from `bits`, int64. `scratch` is None or an int64 tensor that may
be overwritten, which saves memory. All tensors have the same shape."""

# Whether torch.compile compiles the random numbers of this process; set by `compile_numbers`.
_compilation = {"enabled": False}


def compile_numbers(*, on: bool = True) -> None:
    """Let torch.compile compile the random numbers of this process from now on; they are the same up to rounding.

    The first numbers of each law wait about 10 seconds for the compiler. If there is no compiler, or if it computes
    different numbers, the numbers are computed without it.

    Args:
        on: whether to compile; False ends the use of the compiler.
    """
    _compilation["enabled"] = on


def splitmix64(states: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """SplitMix64's finaliser: a bijection of 64 bits in which each output bit depends on all input bits."""
    for shift, multiplier in _ROUNDS:
        states = (states ^ _shift_right(states, shift)) * multiplier
    return states ^ _shift_right(states, _LAST_SHIFT)


@lru_cache(maxsize=8)
def positions(count: int, device: torch.device) -> Int[Tensor, " count"]:
    """The first `count` positions of a row, to be added to its key: multiples of SplitMix64's constant, int64."""
    with torch.inference_mode(mode=False):
        return torch.arange(1, count + 1, device=device) * GAMMA


@lru_cache(maxsize=8)
def positions_channels_last(channels: int, pixels: int, device: torch.device) -> Int[Tensor, " count"]:
    """The positions of an image (C, H, W) with H * W = `pixels`, in the order of the channels-last memory format."""
    with torch.inference_mode(mode=False):
        return positions(channels * pixels, device).view(channels, pixels).t().reshape(-1)


Affine = tuple[Tensor, Tensor]
"""A scale (P,) and an offset, (P,) for all rows or (R, P), that turn numbers n (R, P) into `scale * n + offset`."""


def normal(output: Float[Tensor, "*n"], bits: Int[Tensor, "*n"], scratch: Tensor | None = None) -> Float[Tensor, "*n"]:
    """The standard normal distribution (`Law`) by the Box-Muller transform; absolute values are below 6.7."""
    angle = torch.bitwise_and(bits, _LOW_32_BITS, out=scratch).to(output.dtype).mul_(2 * math.pi * _TWO_TO_MINUS_32)
    return _log_uniform(output, bits, scratch).mul_(-2).sqrt_().mul_(angle.cos_())


def uniform(output: Float[Tensor, "*n"], bits: Int[Tensor, "*n"], scratch: Tensor | None = None) -> Float[Tensor, "*n"]:
    """The uniform distribution on [-sqrt(3), sqrt(3)] (`Law`).

    The numbers are the centres of 2^24 equal cells of the interval (2^53 in float64), the most cells whose centres
    k + 1/2 the dtype represents exactly. Half of the numbers are negative, none is 0 and none lies outside the
    interval. Rounded to a dtype with fewer digits, the outermost equal the rounded ends of the interval.
    """
    digits = 53 if output.dtype == torch.float64 else 24
    cell = torch.bitwise_right_shift(bits, 64 - digits, out=scratch)  # a signed number: the first is -2^(digits - 1)
    return output.copy_(cell).add_(0.5).mul_(math.sqrt(3) * 2.0 ** (1 - digits))


def laplace(output: Float[Tensor, "*n"], bits: Int[Tensor, "*n"], scratch: Tensor | None = None) -> Float[Tensor, "*n"]:
    """Laplace's distribution with standard deviation 1 (`Law`); absolute values are below 15.7.

    The absolute value is exponential, from the upper 32 bits; the sign is the lowest bit.
    """
    sign = torch.bitwise_and(bits, 1, out=scratch).to(output.dtype).mul_(math.sqrt(2)).sub_(math.sqrt(0.5))
    return _log_uniform(output, bits, scratch).mul_(sign)


def _log_uniform(output: Tensor, bits: Tensor, scratch: Tensor | None) -> Tensor:
    """The logarithm of a uniform number in (0, 1], from the upper 32 bits; always finite."""
    return output.copy_(_shift_right(bits, 32, out=scratch)).add_(1).mul_(_TWO_TO_MINUS_32).log_()


def normals(
    keys: Int[Tensor, " r"],
    positions: Int[Tensor, " p"],
    dtype: torch.dtype = torch.float32,
    affine: Affine | None = None,
) -> Float[Tensor, "r p"]:
    """Independent standard normal numbers: `numbers` of the law `normal`."""
    return numbers(normal, keys, positions, dtype, affine)


def numbers(
    law: Law,
    keys: Int[Tensor, " r"],
    positions: Int[Tensor, " p"],
    dtype: torch.dtype = torch.float32,
    affine: Affine | None = None,
) -> Float[Tensor, "r p"]:
    """Independent numbers of mean 0 and standard deviation 1, each a function of its row's key and its position.

    A number depends on the sum of key and position only, so keys must be hashes: the rows are then sections of one
    sequence of 2^64 numbers with random beginnings. float64 numbers are the float32 numbers with smaller rounding
    errors; numbers of other dtypes are rounded float32 numbers. All laws use the same bits, so numbers of two laws are
    independent only with different keys.

    Args:
        law: `normal`, `uniform` or `laplace`.
        keys: one key per row, (R,) int64.
        positions: positions in the rows, (P,) int64, usually from `positions`.
        dtype: floating dtype of the result.
        affine: scale and offset applied to the numbers; None for neither.

    Returns:
        Numbers (R, P) on the device of the keys.
    """
    device_type = keys.device.type
    working_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    if affine is not None:
        scale, offset = affine
        affine = scale.to(working_dtype), (offset.flatten() if len(keys) == 1 else offset).to(working_dtype)
    use_compiler = _compilation["enabled"] and len(keys) and len(positions)
    case = len(keys) == 1, None if affine is None else affine[1].ndim
    generate = _compiled(law, device_type, working_dtype, *case) if use_compiler else partial(_in_chunks, law)
    with torch.no_grad(), torch.autocast(device_type, enabled=False):
        return generate(keys, positions, working_dtype, affine).view(len(keys), len(positions)).to(dtype)


def _at_once(
    law: Law, keys: Int[Tensor, " r"], positions: Int[Tensor, " p"], dtype: torch.dtype, affine: Affine | None = None
) -> Float[Tensor, "..."]:
    """The numbers of all rows, (R, P), or (P,) for a single row."""
    # A single row is a vector because compiled code divides a matrix among the cores by rows only.
    bits = splitmix64((keys if len(keys) == 1 else keys[:, None]) + positions)
    output = law(torch.empty_like(bits, dtype=dtype), bits, None)
    return output if affine is None else output * affine[0] + affine[1]


def _in_chunks(
    law: Law, keys: Int[Tensor, " r"], positions: Int[Tensor, " p"], dtype: torch.dtype, affine: Affine | None = None
) -> Float[Tensor, "r p"]:
    """The numbers of `_at_once`, (R, P), computed chunk by chunk with the same memory for intermediate results."""
    chunk_size = _CHUNK_SIZES.get(keys.device.type, _DEFAULT_CHUNK_SIZE)
    output = torch.empty(len(keys), len(positions), device=keys.device, dtype=dtype)
    rows = max(1, chunk_size // max(1, len(positions)))
    columns = min(chunk_size, len(positions))
    buffers = torch.empty(2, min(rows, len(keys)), columns, device=keys.device, dtype=torch.int64)
    scale, offset = (None, None) if affine is None else (affine[0], affine[1].expand(output.shape))
    for row in range(0, len(keys), rows):
        for start in range(0, len(positions), chunk_size):
            chunk = output[row : row + rows, start : start + chunk_size]
            bits, scratch = buffers[:, : chunk.shape[0], : chunk.shape[1]].unbind()
            torch.add(keys[row : row + rows, None], positions[start : start + chunk_size], out=bits)
            for shift, multiplier in _ROUNDS:
                bits.bitwise_xor_(_shift_right(bits, shift, out=scratch)).mul_(multiplier)
            bits.bitwise_xor_(_shift_right(bits, _LAST_SHIFT, out=scratch))
            law(chunk, bits, scratch)
            if scale is not None and offset is not None:
                chunk_offset = offset[row : row + rows, start : start + chunk_size]
                chunk.mul_(scale[start : start + chunk_size]).add_(chunk_offset)
    return output


def _shift_right(states: Tensor, shift: int, out: Tensor | None = None) -> Tensor:
    """Logical right shift, which fills with zeros; torch's shift of signed integers repeats the sign bit."""
    shifted = torch.bitwise_right_shift(states, shift, out=out)
    return torch.bitwise_and(shifted, (1 << 64 - shift) - 1, out=out)


_Generate = Callable[[Tensor, Tensor, torch.dtype, Affine | None], Tensor]


def _with_own_code(law: Law) -> _Generate:
    """`_at_once` for a law, as a function with its own code object.

    torch.compile stops compiling a code object after 8 variants, and inference-mode tensors are variants, too.
    """

    def generate(keys: Tensor, positions: Tensor, dtype: torch.dtype, affine: Affine | None) -> Tensor:
        return _at_once(law, keys, positions, dtype, affine)

    return FunctionType(generate.__code__.replace(), generate.__globals__, law.__name__, None, generate.__closure__)


@cache
def _compiled(law: Law, device_type: str, dtype: torch.dtype, one_row: bool, offset_ndim: int | None) -> _Generate:
    """`_at_once` compiled by torch.compile; `_in_chunks` if compilation fails or changes the numbers.

    Args:
        law: distribution of the numbers.
        device_type: type of the device.
        dtype: float32 or float64.
        one_row: whether there is a single key.
        offset_ndim: number of dimensions of the offset, 1 for a single key; None without an affine map.
    """
    keys, indices = torch.arange(1 if one_row else 5, device=device_type), positions(1000, torch.device(device_type))
    shape = (len(keys), 1000) if offset_ndim == 2 else (1000,)
    affine = (
        torch.full((1000,), 0.5, device=device_type, dtype=dtype),
        torch.linspace(-1, 1, math.prod(shape), device=device_type, dtype=dtype).view(shape),
    )
    arguments = keys, indices, dtype, None if offset_ndim is None else affine
    in_chunks = partial(_in_chunks, law)
    try:
        compiled = torch.compile(_with_own_code(law), dynamic=True)
        with torch.no_grad(), torch.autocast(device_type, enabled=False):
            computed, expected = compiled(*arguments), in_chunks(*arguments)
    except Exception:  # compilers raise many types of errors
        return in_chunks
    same = torch.allclose(computed, expected.view(computed.shape), rtol=1e-4, atol=1e-5)
    return compiled if same else in_chunks
