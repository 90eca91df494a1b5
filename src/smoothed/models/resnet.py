"""ResNets for 32 x 32 images (He et al., 2016, section 4.2), widths 16/32/64, with 1 x 1 convolutions as shortcuts."""

from collections.abc import Sequence

from torch import Tensor, nn

from smoothed.models.normalize import Normalize


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """Create a 3 x 3 convolution with padding 1, without bias because a batch norm follows."""
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut, which is a 1 x 1 convolution if the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels_in, channels_out, stride)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, channels_in, H, W) to (N, channels_out, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(features)))))
        return self.relu(residual + self.shortcut(features))


class ResNet(nn.Module):
    """ResNet for CIFAR.

    Args:
        depth: number of layers of the form 6 n + 2, such as 20, 32, 44, 56 or 110.
        num_classes: number of classes K.
        mean: mean of the data for each channel, in pixel units of [0, 1].
        std: standard deviation of the data for each channel, in pixel units of [0, 1].
    """

    def __init__(self, depth: int, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.normalize = Normalize(mean, std)
        self.conv1 = conv3x3(len(mean), 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(blocks, 16, 16, stride=1)
        self.layer2 = _stage(blocks, 16, 32, stride=2)
        self.layer3 = _stage(blocks, 32, 64, stride=2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to logits (N, K)."""
        features = self.relu(self.bn1(self.conv1(self.normalize(inputs))))
        features = self.layer3(self.layer2(self.layer1(features)))
        return self.linear(features.mean((2, 3)))


def _stage(blocks: int, channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(BasicBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)))
