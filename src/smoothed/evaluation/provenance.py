"""Provenance of results and of trained models: versions, hardware, git revision, and how they were made."""

import os
import platform
import subprocess
from datetime import UTC, datetime
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


def result_provenance(device: torch.device, command: str, seed: int, seconds: float) -> dict[str, Any]:
    """Return the provenance of a result as JSON values.

    Args:
        device: device of the computation.
        command: command line, or the call of the public function.
        seed: seed of all random numbers.
        seconds: duration of the evaluation; it is short if finished steps were read from a folder.
    """
    return {
        **provenance(device),
        "command": command,
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
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
