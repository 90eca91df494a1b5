"""A compiled module as CUDA graphs, where they pay: a graph starts all kernels of a pass at once.

torch.compile records them (`mode="reduce-overhead"`). What that means is in `torch/_inductor/cudagraph_trees.py`, here
of torch 2.13:

- A graph is of one shape. Of each, one pass warms up, the next one is recorded, both slower than without, and the
  graph stays in memory: so it has to be a shape that comes often. `cudagraph_skip_dynamic_graphs`, torch's own cure for
  uneven passes, is none: kernels of any size, made for the second shape, serve the first one from then on, and would do
  so without a graph.
- All tensors given to it are copied to memory of its own, so that they may be others at each pass, but parameters and
  buffers of modules, which are read where they lie; it is recorded anew where these have moved.
- What it returns is overwritten by the next run.
- Under gradients runs wait for their backward passes, which may never come.
"""

import threading
import warnings
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

from smoothed.probe import seconds_in_turn

# Passes of a shape before it is tried, and shapes that are tried at most.
AFTER = 8
MOST = 8


def has_graphs(device: torch.device) -> bool:
    """Whether torch.compile makes CUDA graphs for that device."""
    return device.type == "cuda"


class Graphs:
    """What a module computes, from inputs (N, ...) and other tensors to one tensor: by CUDA graphs where they pay.

    That is tried once for each shape of the inputs that comes often, where nobody asks for gradients and nothing is in
    train mode. What is not quicker as a graph, or not the same, or can't be one, runs as the module itself.

    Args:
        module: compiled already, the best there is without graphs.
        device: of the passes that may be graphs; on another, where the module may have been moved, none is.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module = module
        self._kind = device.type
        self._lock = threading.Lock()
        # Modules of a graph lie in bare ones, whose mode says nothing.
        self._inside = [inner for inner in module.modules() if inner is not module and type(inner) is not nn.Module]
        self._compiled: Callable[..., Tensor] | None = None
        self._passes: Counter[object] = Counter()
        self._pays: dict[object, bool] = {}
        self._tries = MOST

    def __call__(self, inputs: Tensor, *others: Tensor | None) -> Tensor:
        """What the module gives, in memory that no later pass writes to."""
        elsewhere = inputs.device.type != self._kind
        if elsewhere or torch.is_grad_enabled() or any(inner.training for inner in self._inside):
            return self._module(inputs, *others)
        kind = inputs.shape, inputs.dtype, inputs.device
        if kind not in self._pays and self._tries:
            self._passes[kind] += 1
            if self._passes[kind] == AFTER:
                self._pays[kind] = self._try(inputs, *others)
        if self._pays.get(kind):
            try:
                return self._replay(inputs, *others)
            except Exception:  # recorded anew, say, where weights have moved, and no memory is left for it
                self._pays[kind] = False
        return self._module(inputs, *others)

    def _replay(self, *tensors: Tensor | None) -> Tensor:
        # No `cudagraph_mark_step_begin`: after the copy nothing is alive that it would end, and from the first mark on,
        # all of torch's graphs in a process wait for marks.
        if self._compiled is None:
            self._compiled = torch.compile(self._module.forward, mode="reduce-overhead")
        with self._lock:  # another thread's pass would be in the same memory
            return self._compiled(*tensors).clone()

    def _try(self, inputs: Tensor, *others: Tensor | None) -> bool:
        self._tries -= 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what torch's own parts say of each other
                for _ in range(2):  # to warm up, and to record: on other inputs, for what is recorded must not stay
                    self._replay(1 - inputs, *others)
                plain, replayed = seconds_in_turn(
                    [lambda: self._module(inputs, *others), lambda: self._replay(inputs, *others)]
                )
                expected, got = self._module(inputs, *others), self._replay(inputs, *others)
        except Exception:  # whatever a compiler's many parts raise; the module does without
            self._tries = 0
            return False
        return replayed < plain and torch.allclose(got, expected, rtol=0, atol=0.01 * float(expected.abs().max()))
