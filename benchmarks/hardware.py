"""Measurements of the hardware (speed of matrix products and of memory) and of the memory that a network uses."""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from smoothed.rng.counter_based import compile_numbers, normals, positions


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product of random numbers in `dtype`, best of eight."""
    size = 8192 if device.type == "cuda" else 2048
    first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / _best(lambda: first @ second, device)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes read and written per second by a copy that is too large for caches, best of eight."""
    source = torch.ones(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device)


def peak_memory(device: torch.device) -> float:
    """Peak memory of this process, or of its tensors on a GPU, in MiB.

    On Linux it is read from `/proc`: a child process starts with the memory of its parent, which `resource` includes in
    the peak.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def bytes_moved(network: nn.Module, images: Tensor) -> int:
    """Bytes read and written by the operations of one forward pass; a tensor counts at each operation that uses it."""
    with torch.no_grad():
        network(images)
        with _ByteCounter() as counter:
            network(images)
    return counter.total


class _ByteCounter(TorchDispatchMode):
    """Adds up the bytes of the tensors of all operations, except operations that return a view of their input."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 - torch's arguments
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - the result of any operation
        out = func(*args, **(kwargs or {}))
        addresses = {leaf.data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not all(leaf.data_ptr() in addresses for leaf in outputs) or func.__name__.split(".")[0].endswith("_"):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
            self.total += sum(tensor.nbytes for tensor in tensors)
        return out


def _best(action: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of eight runs."""
    best = float("inf")
    for _ in range(8):
        wait(device)
        start = time.perf_counter()
        action()
        wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def wait(device: torch.device) -> None:
    """Wait until the device has finished all operations."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def settle(device: torch.device) -> None:
    """Compile the random numbers of this process, and wait until they are compiled."""
    compile_numbers()
    normals(torch.arange(1024, device=device), positions(2**12, device))
