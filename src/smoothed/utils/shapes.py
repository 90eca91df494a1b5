"""Shapes of tensors that many signatures share."""

from jaxtyping import Float, Int
from torch import Tensor

ImageBatch = Float[Tensor, "n c h w"]
"""N images of one size, or perturbations of them."""

ImageRows = Float[Tensor, "m c h w"]
"""M of the N images of a batch, which are still worked on."""

LabelBatch = Int[Tensor, " n"]
"""The class of each of N images."""
