"""Choice of the device and of the floating-point precision that it supports."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Literal

import torch

from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_choice

Precision = Literal["float32", "bf16"]
PRECISIONS = ("auto", "float32", "bf16")

_preferred: ContextVar[torch.device | None] = ContextVar("preferred device", default=None)


def best_device() -> torch.device:
    """Return the device of `preferring_device`, else the current CUDA GPU if there is one, else the CPU."""
    return _preferred.get() or torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def preferring_device(name: str) -> Iterator[None]:
    """Make `best_device` return a device inside the block; a GPU with a number is the current one there.

    Args:
        name: `cpu`, `cuda` or `cuda:N`.

    Raises:
        ArgumentError: the name is another, or this computer has no such device.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ArgumentError("device", "auto, cpu, cuda, or cuda:N for the GPU of the number N", repr(name))
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ArgumentError("device", "a device of this computer", name, f"it has {torch.cuda.device_count()} GPUs")
    token = _preferred.set(device)
    try:
        with torch.cuda.device(device.index) if device.index is not None else nullcontext():
            yield
    finally:
        _preferred.reset(token)


def has_bf16_units(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 matrices in hardware, which makes bf16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # torch has no public function for this; if a version lacks the private ones, float32 is the safe choice.
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in probes)


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """Resolve a precision by name: `auto` means bf16 if the device multiplies it in hardware, else float32.

    Args:
        precision: `auto`, `float32` or `bf16`.
        device: the device to compute on.

    Raises:
        ArgumentError: the name is unknown.
    """
    check_choice(precision, PRECISIONS, "precision")
    if precision == "auto":
        return "bf16" if has_bf16_units(device) else "float32"
    return "bf16" if precision == "bf16" else "float32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return a context manager: mixed precision for `bf16`, no effect for `float32`."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
