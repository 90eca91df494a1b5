"""What the hardware offers: a device, and whether it has units for bf16."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from smoothed.utils.checks import check_choice

Precision = Literal["float32", "bf16"]
PRECISIONS = ("auto", "float32", "bf16")


def best_device() -> torch.device:
    """The first CUDA GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bf16_units(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 matrices in hardware, so that bf16 is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # torch has no public question for this; where the private one is gone, float32 is the safe answer.
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in probes)


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """`auto` is bf16 where the device has units for it, else float32; the other names are themselves."""
    check_choice(precision, PRECISIONS, "precision")
    if precision == "auto":
        return "bf16" if has_bf16_units(device) else "float32"
    return "bf16" if precision == "bf16" else "float32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision inside the block for `bf16`, nothing for `float32`."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
