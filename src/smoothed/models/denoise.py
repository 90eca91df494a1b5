"""Feature denoising (Xie et al., CVPR 2019): ResNets with a block of non-local means after each stage.

A block turns features x into x + BN(conv(y)), where the convolution is 1 x 1 and y_i is a weighted mean of the features
x_j at all positions j (their section 4):

    dot_product   y_i = 1 / N  sum over j of (x_i . x_j) x_j
    gaussian      y_i = sum over j of softmax_j(theta(x_i) . phi(x_j) / sqrt(d)) x_j

N is the number of positions, and theta and phi are 1 x 1 convolutions to d channels, half of those of x. As in the
authors' code, the two have no bias and start from a deviation of 0.01, the batch norm's factor starts at 0, so that a
new block changes nothing, and no activation follows. The paper has one block after the last residual block of each of
the four stages of an ImageNet ResNet; the ResNets here have three stages, and so three blocks.

The dot product needs no products of pairs of positions, and little time. The softmax does: over the 1,024 positions of
the first stage for 32 x 32 images, it takes several times as long as the rest of a ResNet-20.
"""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from smoothed.models.resnet import ResNet
from smoothed.utils.checks import check_choice

Weighting = Literal["dot_product", "gaussian"]
"""How the weights of the mean follow from the features."""

# Standard deviation of the initial weights of theta and phi, of the authors' code.
EMBEDDING_DEVIATION = 0.01


class DenoisingBlock(nn.Module):
    """Non-local means, a 1 x 1 convolution, batch norm and a shortcut, for features of an even number of channels.

    Args:
        channels: number of channels of the features.
        weighting: `dot_product`, or `gaussian` with learned embeddings theta and phi.

    Raises:
        ArgumentError: `weighting` is unknown.
    """

    def __init__(self, channels: int, weighting: Weighting = "dot_product") -> None:
        super().__init__()
        self.weighting: Weighting = check_choice(weighting, get_args(Weighting), "weighting")  # pyright: ignore[reportAttributeAccessIssue]
        if weighting == "gaussian":
            self.theta, self.phi = (nn.Conv2d(channels, channels // 2, 1, bias=False) for _ in range(2))
            for embedding in (self.theta, self.phi):
                nn.init.normal_(embedding.weight, std=EMBEDDING_DEVIATION)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, C, H, W) to denoised features of the same shape."""
        if self.weighting == "gaussian":
            denoised = gaussian_means(self.theta(features), self.phi(features), features)
        else:
            denoised = dot_product_means(features)
        return features + self.bn(self.conv(denoised))


# The two have no shapes in their types and do not read sizes as numbers, so that torch.fx can trace them for `Fast`.
def gaussian_means(theta: Tensor, phi: Tensor, features: Tensor) -> Tensor:
    """Return the means of the features over all positions, with weights softmax_j(theta_i . phi_j / sqrt(d)).

    Args:
        theta: embedded features at the positions i of the result, (N, d, H, W).
        phi: embedded features at the positions j that are averaged, (N, d, H, W).
        features: features x, (N, C, H, W).

    Returns:
        Means, (N, C, H, W).
    """
    queries, keys, values = (each.flatten(2).transpose(1, 2) for each in (theta, phi, features))
    means = functional.scaled_dot_product_attention(queries, keys, values)
    return means.transpose(1, 2).reshape_as(features)


def dot_product_means(features: Tensor) -> Tensor:
    """Return the mean over all positions j of (x_i . x_j) x_j, at each position i.

    The products of all pairs of positions are not stored: the result is the mean over j of x_j x_j^T, a matrix of the
    size of the channels, times x_i.

    Args:
        features: features x, (N, C, H, W).

    Returns:
        Means, (N, C, H, W).
    """
    pixels = features.flatten(2)
    covariance = pixels @ (pixels / pixels.shape[2]).transpose(1, 2)
    return (covariance @ pixels).reshape_as(features)


class DenoisingResNet(ResNet):
    """A `ResNet` with a denoising block after each of its three stages.

    Args:
        depth: number of layers of the ResNet, of the form 6 n + 2.
        num_classes: number of classes K.
        mean: mean of the data for each channel, in pixel units of [0, 1].
        std: standard deviation of the data for each channel, in pixel units of [0, 1].
        weighting: see `DenoisingBlock`.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        weighting: Weighting = "dot_product",
    ) -> None:
        super().__init__(depth, num_classes, mean, std)
        self.denoise1, self.denoise2, self.denoise3 = (DenoisingBlock(width, weighting) for width in (16, 32, 64))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to logits (N, K)."""
        features = self.relu(self.bn1(self.conv1(self.normalize(inputs))))
        features = self.denoise1(self.layer1(features))
        features = self.denoise2(self.layer2(features))
        features = self.denoise3(self.layer3(features))
        return self.linear(features.mean((2, 3)))
