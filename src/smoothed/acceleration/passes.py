"""Protocol by which a network states its preferred memory format and whether several draws can share a pass."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from smoothed.rng.sources import Source


@runtime_checkable
class Passes(Protocol):
    """Preferred form of a network's forward passes.

    `Fast` implements it; `passes_of` returns a default for other models.

    Attributes:
        memory_format: memory format of the images that the network prefers; `torch.preserve_format` for none.
    """

    memory_format: torch.memory_format

    def draws_per_pass(self, images: Float[Tensor, "n c h w"], rows: int) -> int:
        """Number of draws of these images that `stacked` should compute at once; 1 for none."""
        ...

    def stacked(self, inputs: Float[Tensor, "d n c h w"], sources: Sequence[Source]) -> Float[Tensor, "d n k"]:
        """The logits of several draws in one pass, each with noise of its own."""
        ...


class PlainPasses:
    """The passes of a model without a faster form: images in any memory format, one draw a pass."""

    memory_format = torch.preserve_format

    def draws_per_pass(self, images: Float[Tensor, "n c h w"], rows: int) -> int:
        """See `Passes`: always 1."""
        del images, rows
        return 1

    def stacked(self, inputs: Float[Tensor, "d n c h w"], sources: Sequence[Source]) -> Float[Tensor, "d n k"]:
        """See `Passes`: never called, because `draws_per_pass` is 1."""
        raise NotImplementedError


def passes_of(model: object) -> Passes:
    """Return `model` if it implements `Passes`, else the default."""
    return model if isinstance(model, Passes) else PlainPasses()
