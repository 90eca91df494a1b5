"""Leave a model as it was found: run it in eval mode and give every submodule its own mode back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

Classifier = Callable[[Tensor], Tensor]
"""Anything that maps images (N, C, H, W) to logits (N, K)."""


@contextmanager
def evaluating(model: Classifier) -> Iterator[None]:
    """Run `model` in eval mode inside the block; afterwards each submodule has the mode it had before."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
