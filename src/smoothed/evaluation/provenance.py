"""Provenance of a trained model: versions, hardware and git revision."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import accelerate
import torch

from smoothed.checkpoint import package_version


def provenance(device: torch.device) -> dict[str, Any]:
    """Return versions, hardware and git revision (None outside a checkout) as JSON values."""
    cuda = device.type == "cuda"
    return {
        "smoothed": package_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if cuda else f"{os.cpu_count()} CPU cores ({_processor()})",
        "revision": _revision(),
    }


def _processor() -> str:
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except OSError:
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
