"""Randomised discretisation (Zhang and Liang, AISTATS 2019): Gaussian noise, then one of a few colours for each pixel.

A draw chooses k colours c_1 .. c_k at random from the noisy pixels of the image x, and gives each pixel p of another
noisy copy the nearest of them:

    x'_p = c_j,  j = argmin over i of |x_p + sigma n_p - c_i|^2

The network classifies x'. Whatever the network, noise and discretisation bring the distributions of x' for an image and
for its adversarial example closer together. The map has no useful gradient, so attacks use the gradient of a
differentiable substitute (BPDA, `attacks.bpda`) and average it over draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage] - torch's only name for "any convolution"

from smoothed.attacks.bpda import bpda
from smoothed.errors import ArgumentError
from smoothed.injection.layer import NoiseLayer
from smoothed.injection.pni import Site
from smoothed.models.normalize import Normalize
from smoothed.utils.checks import check_choice, check_not_negative, check_positive

StandIn = Literal["identity", "mixture"]
"""Function whose gradient replaces that of the discretisation."""

SOFTNESS = 40.0
"""Factor on the squared distances of a pixel from the colours, in the weights of the `mixture`."""


@dataclass(frozen=True)
class RandomizedDiscretization:
    """Law of randomised discretisation, which `inject` puts in front of a network, as `activations=`.

    Without `layers=`, it acts on the input of the network's `Normalize` layer, so that `sigma` and distances are in
    pixel units of [0, 1]. A network without one has it on the input of its first convolution, in the units of that
    input. Each image has random numbers of its own. With the noise off (`noiseless`), the image passes unchanged.

    The paper's abstract leaves the draw of the colours open. Here it is that of k-means++, softened as in a public
    wrapper of the authors' ImageNet classifier: the first of `candidates` noisy pixels is drawn uniformly, and each
    other one with a probability proportional to exp(`spread` d^2), where d is its distance from the nearest colour so
    far. (The wrapper itself leaves d at a constant, which is `spread=0`.) The default numbers are the wrapper's, in
    pixel units of [0, 1]; choose yours on held-out images.

    Args:
        sigma: standard deviation of the noise on pixels and on candidates, at least 0.
        colors: number k of colours of an image, at least 1.
        candidates: number of pixels, drawn with replacement, among which the colours are chosen, at least 1.
        spread: preference for colours far from those already chosen, at least 0; 0 chooses uniformly.
        stand_in: function whose gradient attacks use: the `identity`, or a `mixture` of the colours with weights
            `softmax(-40 |x_p + sigma n_p - c_i|^2)`, which is differentiated through the colours, too. The mixture is
            what the wrapper classifies (RandMix).

    Raises:
        ArgumentError: an amount is out of range, or `stand_in` is unknown.
    """

    sigma: float = 16 / 255
    colors: int = 5
    candidates: int = 100
    spread: float = 40.0
    stand_in: StandIn = "identity"
    site: ClassVar[Site] = "input"

    def __post_init__(self) -> None:
        check_not_negative(self.sigma, "sigma")
        check_positive(self.colors, "colors")
        check_positive(self.candidates, "candidates")
        check_not_negative(self.spread, "spread")
        check_choice(self.stand_in, get_args(StandIn), "stand_in")

    def scaled(self, strength: float) -> "RandomizedDiscretization":
        """Return the same law with `sigma` multiplied by `strength`; the colours are as many, and as random."""
        return replace(self, sigma=self.sigma * strength)

    def for_weight(self, weight: Tensor, channel_dim: int = 0) -> NoiseLayer:
        """Raise `ArgumentError`: the law applies to images only."""
        del weight, channel_dim
        raise ArgumentError("weights", "PNI or CNI", "RandomizedDiscretization", "pass it as activations=")

    def for_activation(self, channels: int, spatial: int) -> NoiseLayer:
        """Create the layer for images (N, channels, H, W).

        Raises:
            ArgumentError: `spatial` is not 2, as before a linear layer.
        """
        del channels
        if spatial != 2:
            hint = "put the law in front of a network whose first layer is a Normalize layer or a Conv2d"
            raise ArgumentError("layers", "a layer whose input is images", f"one with {spatial} spatial axes", hint)
        return RandomizedDiscretizationLayer(self)


class RandomizedDiscretizationLayer(NoiseLayer):
    """Noise layer that replaces images (N, C, H, W) by their discretised copies; `sigma` is a scalar buffer."""

    sigma: Tensor

    def __init__(self, options: RandomizedDiscretization) -> None:
        super().__init__(per_row=True)
        self.options = options
        self.register_buffer("sigma", torch.tensor(float(options.sigma)))

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        """See `NoiseLayer.scale_`."""
        self.sigma.mul_(factor)

    def forward(self, tensor: Tensor) -> Tensor:
        """Return one draw of the discretised images, of their shape, or the images themselves if the noise is off."""
        if self.source is None:
            return tensor
        with torch.autocast(tensor.device.type, enabled=False):
            return self._discretized(tensor)

    def noise(self, tensor: Tensor) -> Tensor:
        """See `NoiseLayer.noise`: what one draw adds to the images."""
        return self._discretized(tensor) - tensor

    def _discretized(self, images: Tensor) -> Tensor:
        if images.ndim != 4:
            raise ArgumentError("inputs", "images of shape (N, C, H, W)", f"shape {tuple(images.shape)}")
        options, sigma = self.options, self.sigma.to(images.dtype)
        sizes = numbers_of_a_draw(images.shape[1:], options.colors, options.candidates)
        # One request: a layer's numbers in a pass belong to one key.
        pixels, *numbers = self.normals((len(images), sum(sizes)), images).split(sizes, 1)

        def noisy_and_colors(images: Tensor) -> tuple[Tensor, Tensor]:
            colors = draw_colors(images, numbers, sigma=sigma, count=options.colors, spread=options.spread)
            return images + sigma * pixels.view(images.shape), colors

        def identity(images: Tensor) -> Tensor:
            return images

        def mixture(images: Tensor) -> Tensor:
            return mixed_colors(*noisy_and_colors(images))

        stand_in = mixture if options.stand_in == "mixture" else identity
        return bpda(lambda images: nearest_colors(*noisy_and_colors(images)), stand_in)(images)


def layers_of_images(model: nn.Module, weights: object = None) -> list[str]:
    """Return the name of the layer whose input the images are, in a list.

    It is the first `Normalize` of the network, or, without one, its first convolution or linear layer.

    Args:
        model: any network.
        weights: the noise that the same call of `inject` would add to weights.

    Raises:
        ArgumentError: the network has no such layer, or `weights` is not None, for the one layer is not meant for it.
    """
    if weights is not None:
        hint = "add the noise on weights by a call of its own"
        raise ArgumentError("weights", "None beside RandomizedDiscretization on the image", repr(weights), hint)
    for kinds in (Normalize, (_ConvNd, nn.Linear)):
        name = next((name for name, layer in model.named_modules() if isinstance(layer, kinds)), None)
        if name is not None:
            return [name]
    raise ArgumentError("model", "at least one convolution or linear layer", "none")


def numbers_of_a_draw(shape: Sequence[int], colors: int, candidates: int) -> list[int]:
    """Return the numbers of standard normals of one draw for an image (C, H, W).

    They are for pixel noise, candidate positions, candidate noise and colour choices; `draw_colors` takes all but the
    first.
    """
    channels, height, width = shape
    return [channels * height * width, candidates, channels * candidates, colors * candidates]


def draw_colors(
    images: Float[Tensor, "n c h w"], numbers: Sequence[Tensor], *, sigma: Tensor | float, count: int, spread: float
) -> Float[Tensor, "n c k"]:
    """Draw k colours of each image from its noisy pixels.

    Args:
        images: images, (N, C, H, W).
        numbers: standard normals for the places of S candidates (N, S), for their noise (N, C S), and for the choices
            (N, k S), as many as `numbers_of_a_draw` says.
        sigma: standard deviation of the candidates' noise.
        count: number k of colours.
        spread: see `RandomizedDiscretization`.

    Returns:
        Colours, (N, C, k), differentiable with respect to the images.
    """
    places, noise, choices = numbers
    pixels = images.flatten(2)
    # Normal numbers become uniform ones by their distribution function, and Gumbel's by the logarithm of it.
    index = (torch.special.ndtr(places) * pixels.shape[2]).long().clamp(max=pixels.shape[2] - 1)
    channels = pixels.shape[1]
    found = pixels.gather(2, index[:, None].expand(-1, channels, -1))
    candidates = found + sigma * noise.view(found.shape)
    gumbels = -(-torch.special.log_ndtr(choices)).log()
    distances, colors = torch.zeros_like(places), list[Tensor]()
    for gumbel in gumbels.view(len(images), count, -1).unbind(1):
        # The largest of logits plus Gumbel noise is a draw from their softmax.
        chosen = (spread * distances + gumbel).argmax(1)
        color = candidates.gather(2, chosen[:, None, None].expand(-1, channels, 1))
        apart = (candidates - color).detach().square().sum(1)
        distances = torch.minimum(distances, apart) if colors else apart
        colors.append(color)
    return torch.cat(colors, 2)


def nearest_colors(images: Float[Tensor, "n c h w"], colors: Float[Tensor, "n c k"]) -> Float[Tensor, "n c h w"]:
    """Give each pixel of the images the nearest of its image's colours; the first of equally near ones."""
    nearest = _squared_distances(images, colors).argmin(1).flatten(1)
    return colors.gather(2, nearest[:, None].expand(-1, images.shape[1], -1)).view(images.shape)


def mixed_colors(images: Float[Tensor, "n c h w"], colors: Float[Tensor, "n c k"]) -> Float[Tensor, "n c h w"]:
    """Give each pixel the mean of its image's colours with weights softmax(-40 |x_p - c_i|^2)."""
    weights = (-SOFTNESS * _squared_distances(images, colors)).softmax(1)
    return torch.einsum("nck,nkhw->nchw", colors, weights)


def _squared_distances(images: Tensor, colors: Tensor) -> Float[Tensor, "n k h w"]:
    """|x_p - c_i|^2 for each pixel and colour, one colour at a time, so that memory stays that of k grey images."""
    return torch.stack([(images - color[:, :, None, None]).square().sum(1) for color in colors.unbind(2)], 1)
