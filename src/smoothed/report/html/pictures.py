"""Images as PNG files in data URIs, which a page shows without a network."""

import base64
import math
from io import BytesIO

from jaxtyping import Float
from PIL import Image
from torch import Tensor


def picture(image: Float[Tensor, "c h w"], side: int) -> str:
    """The data URI of a PNG file.

    Args:
        image: pixels in [0, 1]. One channel is grey and three are colours; of other numbers the first three are shown,
            or the first one of two.
        side: largest width and height in pixels; larger images are shrunk.
    """
    channels = image[:3] if len(image) >= 3 else image[:1]
    pixels = (channels.float().nan_to_num(0.0).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    drawn = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if max(drawn.size) > side:
        drawn.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = BytesIO()
    drawn.save(file, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def amplification(clean: Float[Tensor, "n c h w"], attacked: Float[Tensor, "n c h w"]) -> int:
    """The largest whole factor with which the differences of all images still fit around a middle grey."""
    largest = float((attacked - clean).abs().max()) if len(clean) else 0.0
    return max(1, math.floor(0.5 / largest + 1e-4)) if largest > 0 else 1


def difference(clean: Float[Tensor, "c h w"], attacked: Float[Tensor, "c h w"], factor: int) -> Float[Tensor, "c h w"]:
    """The change of each pixel times `factor`, around a middle grey of 1/2, in [0, 1]."""
    return (0.5 + factor * (attacked - clean)).clamp(0, 1)
