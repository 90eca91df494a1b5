"""Random numbers from a counter-based generator: each number is a function of a key and a position only.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) hashes key and position to 64 bits, and a law converts the bits to a
number: normal (Box and Muller, 1958), uniform or Laplace. The generator has no state and consists of tensor operations,
which use all cores of a device.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Identifies the numbers that a key yields: to be changed whenever these numbers change.
GENERATOR = "SplitMix64: Box-Muller, uniform of 24 or 53 bits, signed exponential"

# SplitMix64's constants, as signed integers.
GAMMA = 0x9E3779B97F4A7C15 - 2**64
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))
_LAST_SHIFT = 31

# Numbers computed at a time, by device type; on a CPU, so few that intermediates stay in its caches.
_CHUNK_SIZES = {"cpu": 2**18}
_DEFAULT_CHUNK_SIZE = 2**24

_LOW_32_BITS = 2**32 - 1
_TWO_TO_MINUS_32 = 2.0**-32

Law = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A function `law(output, bits, scratch)` that fills `output`, float32 or float64, with numbers of mean 0 and standard
deviation 1 and returns it. The numbers are computed from `bits`, int64. `scratch` is an int64 tensor that may be
overwritten. All tensors have the same shape."""


def splitmix64(states: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """SplitMix64's finaliser: a bijection of 64 bits in which each output bit depends on all input bits."""
    for shift, multiplier in _ROUNDS:
        states = (states ^ _shift_right(states, shift)) * multiplier
    return states ^ _shift_right(states, _LAST_SHIFT)


def positions(count: int, device: torch.device) -> Int[Tensor, " count"]:
    """The first `count` positions of a row, to be added to its key: multiples of SplitMix64's constant, int64."""
    return torch.arange(1, count + 1, device=device) * GAMMA


def positions_channels_last(channels: int, pixels: int, device: torch.device) -> Int[Tensor, " count"]:
    """The positions of an image (C, H, W) with H * W = `pixels`, in the order of the channels-last memory format."""
    return positions(channels * pixels, device).view(channels, pixels).t().reshape(-1)


Affine = tuple[Tensor, Tensor]
"""A scale (P,) and an offset, (P,) for all rows or (R, P), that turn numbers n (R, P) into `scale * n + offset`."""


def normal(output: Float[Tensor, "*n"], bits: Int[Tensor, "*n"], scratch: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The standard normal distribution (`Law`) by the Box-Muller transform; absolute values are below 6.7."""
    angle = torch.bitwise_and(bits, _LOW_32_BITS, out=scratch).to(output.dtype).mul_(2 * math.pi * _TWO_TO_MINUS_32)
    return _log_uniform(output, bits, scratch).mul_(-2).sqrt_().mul_(angle.cos_())


def uniform(output: Float[Tensor, "*n"], bits: Int[Tensor, "*n"], scratch: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The uniform distribution on [-sqrt(3), sqrt(3)] (`Law`).

    The numbers are the centres of 2^24 equal cells of the interval (2^53 in float64), the most cells whose centres
    k + 1/2 the dtype represents exactly. Half of the numbers are negative, none is 0 and none lies outside the
    interval. Rounded to a dtype with fewer digits, the outermost equal the rounded ends of the interval.
    """
    digits = 53 if output.dtype == torch.float64 else 24
    cell = torch.bitwise_right_shift(bits, 64 - digits, out=scratch)  # a signed number: the first is -2^(digits - 1)
    return output.copy_(cell).add_(0.5).mul_(math.sqrt(3) * 2.0 ** (1 - digits))


def laplace(output: Float[Tensor, "*n"], bits: Int[Tensor, "*n"], scratch: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Laplace's distribution with standard deviation 1 (`Law`); absolute values are below 15.7.

    The absolute value is exponential, from the upper 32 bits; the sign is the lowest bit.
    """
    sign = torch.bitwise_and(bits, 1, out=scratch).to(output.dtype).mul_(math.sqrt(2)).sub_(math.sqrt(0.5))
    return _log_uniform(output, bits, scratch).mul_(sign)


def _log_uniform(output: Tensor, bits: Tensor, scratch: Tensor) -> Tensor:
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
    working_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    with torch.no_grad(), torch.autocast(keys.device.type, enabled=False):
        if affine is not None:
            affine = affine[0].to(working_dtype), affine[1].to(working_dtype)
        return _in_chunks(law, keys, positions, working_dtype, affine).to(dtype)


def _in_chunks(
    law: Law, keys: Int[Tensor, " r"], positions: Int[Tensor, " p"], dtype: torch.dtype, affine: Affine | None
) -> Float[Tensor, "r p"]:
    """`numbers`, computed chunk by chunk with the same memory for intermediate results."""
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
