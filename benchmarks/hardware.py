"""What the machine can do, measured: matrix products and copies; and what a network asks of memory."""

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

from smoothed.rng.counter_based import compile_numbers, normals, places


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The best floating-point operations a second of a large matrix product on random numbers, in `dtype`."""
    size = 8192 if device.type == "cuda" else 2048
    first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / _best(lambda: first @ second, device)


def copy_bandwidth(device: torch.device) -> float:
    """The best bytes a second, read and written, of a copy too large for caches."""
    source = torch.ones(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device)


def peak_memory(device: torch.device) -> float:
    """Megabytes at the peak of this process, or of its tensors on a GPU.

    Of a child, `resource` would give its parent's, whose memory it had until it was another program.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def bytes_moved(network: nn.Module, images: Tensor) -> int:
    """The bytes that the operations of one pass read and write, each tensor at each of them."""
    with torch.no_grad():
        network(images)
        with _Moved() as moved:
            network(images)
    return moved.total


class _Moved(TorchDispatchMode):
    """Adds up the tensors of all operations but those that give another view of their input."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 - torch's
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operation gives
        out = func(*args, **(kwargs or {}))
        taken = {leaf.data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        given = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not all(leaf.data_ptr() in taken for leaf in given) or func.__name__.split(".")[0].endswith("_"):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
            self.total += sum(tensor.nbytes for tensor in tensors)
        return out


def _best(action: Callable[[], object], device: torch.device) -> float:
    """The seconds of the quickest of eight."""
    best = float("inf")
    for _ in range(8):
        wait(device)
        begun = time.perf_counter()
        action()
        wait(device)
        best = min(best, time.perf_counter() - begun)
    return best


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def settle(device: torch.device) -> None:
    """Let torch.compile make the random numbers, and wait until it has."""
    compile_numbers()
    normals(torch.arange(1024, device=device), places(2**12, device))
