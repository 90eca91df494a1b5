"""Run a model in another mode, and give every submodule its own mode back afterwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - torch's name for all of them

Classifier = Callable[[Tensor], Tensor]
"""Anything that maps images (N, C, H, W) to logits (N, K)."""


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Run `model` in eval mode inside the block; afterwards each submodule has the mode it had before.

    What is no `torch.nn.Module` has no mode.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    # To set what is set already takes as long as a small pass; but who knows what a `train` of one's own does.
    if any(training or type(module).train is not nn.Module.train for module, training in modes):
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            if module.training != training:
                module.training = training


@contextmanager
def batch_statistics(model: Classifier) -> Iterator[None]:
    """Eval mode inside the block, but for batch norms, which use the batch's statistics and leave their own alone."""
    with evaluating(model):
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)] if isinstance(model, nn.Module) else []
        tracked = [norm.track_running_stats for norm in norms]
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        try:
            yield
        finally:
            for norm, tracks in zip(norms, tracked, strict=True):
                norm.track_running_stats = tracks
