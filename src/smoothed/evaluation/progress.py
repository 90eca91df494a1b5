"""Progress of an evaluation inside its batches, counted in forward passes of the networks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

OnProgress = Callable[[int, int], None]
"""Called with the finished amount of work (batches, unless stated) and its total."""

GRADIENT = 3
"""Passes that a forward pass with its gradient takes as long as."""


def ignore_progress(done: int, total: int) -> None:
    """Progress callback that does nothing."""


class PassProgress:
    """Reports the finished forward passes of single images; one with a gradient counts as `GRADIENT`.

    Args:
        total: estimated number of passes of all work.
        on_passes: called with the finished passes, which only grow, and the total, which the last call reaches.
    """

    def __init__(self, total: int, on_passes: OnProgress = ignore_progress) -> None:
        self.total, self._on_passes = total, on_passes
        self._finished, self._reported = 0, 0

    @contextmanager
    def part(self, passes: int, model: object) -> Iterator[None]:
        """Count the passes of `model` inside the block; at its end, all passes of this part are finished.

        The last of them is reported with the next part or with the end of the batch, which is stored before.

        Args:
            passes: estimated number of passes of this part; more of them are not reported.
            model: network whose passes are counted. Those of other callables are reported at the end.
        """
        counted = 0

        def count(module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
            nonlocal counted
            del module, logits
            counted += len(inputs[0]) * (GRADIENT if torch.is_grad_enabled() else 1)
            self._report(self._finished + min(counted, passes - 1))

        handle = model.register_forward_hook(count) if isinstance(model, nn.Module) else None
        try:
            yield
        finally:
            if handle is not None:
                handle.remove()
        self._report(self._finished + passes - 1)
        self._finished += passes

    @contextmanager
    def batch(self, passes: int) -> Iterator[None]:
        """Report the end of a batch of `passes`, also if it was loaded from a folder and none of its parts ran."""
        end = self._finished + passes
        yield
        self._finished = end
        self._report(end)

    def _report(self, finished: int) -> None:
        if finished > self._reported:
            self._reported = finished
            self._on_passes(finished, self.total)
