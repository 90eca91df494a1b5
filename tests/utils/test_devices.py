"""Precisions."""

import pytest
import torch

from smoothed.errors import ArgumentError
from smoothed.utils.devices import autocast, best_device, has_bf16_units, resolve_precision


def test_auto_asks_the_hardware():
    device = best_device()
    assert resolve_precision("auto", device) == ("bf16" if has_bf16_units(device) else "float32")
    assert resolve_precision("float32", device) == "float32"
    assert not has_bf16_units(torch.device("meta"))
    with pytest.raises(ArgumentError, match="precision: expected one of auto, float32, bf16, got 'fp8'"):
        resolve_precision("fp8", device)


def test_autocast():
    matrix = torch.ones(4, 4)
    with autocast("bf16", torch.device("cpu")):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with autocast("float32", torch.device("cpu")):
        assert (matrix @ matrix).dtype == torch.float32
