"""Wide residual networks with pre-activation (Zagoruyko and Komodakis, 2016), common in adversarial training."""

from collections.abc import Sequence

from torch import Tensor, nn

from smoothed.models.normalize import Normalize
from smoothed.models.resnet import conv3x3


class WideBlock(nn.Module):
    """Two 3 x 3 convolutions, each after batch norm and ReLU, with a 1 x 1 shortcut if the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = conv3x3(channels_in, channels_out, stride)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.relu = nn.ReLU(inplace=True)
        changes = stride != 1 or channels_in != channels_out
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False) if changes else None

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, channels_in, H, W) to (N, channels_out, H / stride, W / stride)."""
        active = self.relu(self.bn1(features))
        # If the shape changes, the shortcut starts after the first activation, as in the authors' code.
        shortcut = features if self.shortcut is None else self.shortcut(active)
        return shortcut + self.conv2(self.relu(self.bn2(self.conv1(active))))


class WideResNet(nn.Module):
    """Wide ResNet for CIFAR.

    Args:
        depth: number of layers of the form 6 n + 4, such as 28 or 34.
        width: factor on the number of channels of a ResNet; 10 in WRN-34-10.
        num_classes: number of classes K.
        mean: mean of the data for each channel, in pixel units of [0, 1].
        std: standard deviation of the data for each channel, in pixel units of [0, 1].
    """

    def __init__(self, depth: int, width: int, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.normalize = Normalize(mean, std)
        self.conv1 = conv3x3(len(mean), 16)
        self.layer1 = _stage(blocks, 16, 16 * width, stride=1)
        self.layer2 = _stage(blocks, 16 * width, 32 * width, stride=2)
        self.layer3 = _stage(blocks, 32 * width, 64 * width, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU(inplace=True)
        self.linear = nn.Linear(64 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to logits (N, K)."""
        features = self.layer3(self.layer2(self.layer1(self.conv1(self.normalize(inputs)))))
        return self.linear(self.relu(self.bn1(features)).mean((2, 3)))


def _stage(blocks: int, channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    first = WideBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(WideBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)))
