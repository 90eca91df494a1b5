"""Precisions."""

import pytest
import torch

from smoothed.errors import ArgumentError
from smoothed.utils.devices import autocast, best_device, has_bf16_units, preferring_device, resolve_precision


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


def test_a_preferred_device_is_the_best_one_inside_the_block(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert best_device() == torch.device("cuda")
    with preferring_device("cpu"):
        assert best_device() == torch.device("cpu")
        with preferring_device("cuda"):
            assert best_device() == torch.device("cuda")
        assert best_device() == torch.device("cpu")
    assert best_device() == torch.device("cuda")
    for name, message in {
        "gpu": "device: expected auto, cpu, cuda, or cuda:N for the GPU of the number N, got 'gpu'",
        "cuda:1": "device: expected a device of this computer, got cuda:1; it has 1 GPUs",
    }.items():
        with pytest.raises(ArgumentError, match=message), preferring_device(name):
            pass
