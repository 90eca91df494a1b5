"""Shapes of tensors that many signatures share."""

from jaxtyping import Float, Int
from torch import Tensor

ImageBatch = Float[Tensor, "n c h w"]
"""N images of one size, or perturbations of them."""

LabelBatch = Int[Tensor, " n"]
"""The class of each of N images."""
