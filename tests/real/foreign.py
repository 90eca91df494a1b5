"""Networks and images that this project did not make: as other libraries write them, and without any part of it."""

import json
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = ("bolt", "gear")


class BasicBlock(nn.Module):
    """The block of torchvision's ResNet-18, with the names of its state dict."""

    def __init__(self, inplanes, planes, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """torchvision's ResNet with fewer channels. It expects images that are normalised by `MEAN` and `STD`."""

    def __init__(self, layers=(1, 1, 1, 1), num_classes=2, width=8, in_channels=3):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        widths = [width * 2**i for i in range(4)]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(
                BasicBlock(widths[max(i - 1, 0)], widths[i], 1 if i == 0 else 2),
                *(BasicBlock(widths[i], widths[i]) for _ in range(layers[i] - 1)),
            )
            for i in range(4)
        )
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def small_net(channels, classes, stride=4):
    """Two convolutions and a linear layer, seeded, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = nn.Conv2d(channels, 8, stride + 1, stride), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, classes)).eval()


def random_images(count, shape, classes, seed=0):
    """Random bytes (N, C, H, W), and labels that include the first and the last class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    labels[0], labels[-1] = classes - 1, 0
    return torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8), labels


def separable_images(count, seed):
    """Bytes (N, 3, 16, 16) of two classes: one diagonal half is brighter by 10 of 255 than the other, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = 110 + 40 * torch.randn(count, 3, 16, 16, generator=generator)
    half = torch.ones(16, 16).tril() * 10
    images += torch.stack([half, half.T])[labels][:, None]
    return images.round().clamp(0, 255).byte(), labels


def normalized(images):
    """Bytes as the networks expect them that normalise outside."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return (images.float() / 255 - mean) / std


@cache
def trained_weights():
    """State dict of a `ResNet` that tells most of the separable images apart, trained by plain torch."""
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        network = ResNet()
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
        for step in range(25):
            images, labels = separable_images(64, 1000 + step)
            loss = nn.functional.cross_entropy(network(normalized(images)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.state_dict()


def trained_resnet():
    """A new `ResNet` with these weights, in eval mode."""
    network = ResNet()
    network.load_state_dict(trained_weights())
    return network.eval()


class Records(Dataset):
    """Items that are dictionaries with keys of their own; images are PIL images."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        pixels = self.images[index].permute(1, 2, 0).numpy()
        return {"photo": Image.fromarray(pixels), "part": int(self.labels[index]), "id": f"{index:05}"}


class Augmented(Dataset):
    """Items with random augmentation, as in a training loader: a mirrored image, and noise of a few grey levels."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.images[index].float() / 255
        image = image.flip(-1) if np.random.random() < 0.5 else image  # the global generator, as users do
        return (image + 0.02 * torch.randn(image.shape)).clamp(0, 1), int(self.labels[index])


def write_folder(folder, images, labels, split="test"):
    """Write PNG files to folder/split/CLASS/NUMBER.png; in this order, and by class, they are read again."""
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        path = folder / split / CLASSES[label] / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return folder


def loader(images, labels, **options):
    return DataLoader(TensorDataset(images.float() / 255, labels), batch_size=7, **options)


@dataclass(frozen=True)
class Case:
    """A network and data of one kind, and the same classifier in plain torch.

    Attributes:
        load: arguments of `smoothed.load`.
        data: images and labels as a user has them.
        logits: function from the images of `data`, as bytes (N, C, H, W), to logits, without this project.
        images: the images as bytes.
        labels: their labels.
    """

    load: dict
    data: object
    logits: object
    images: torch.Tensor
    labels: torch.Tensor


def _resnet():
    images, labels = separable_images(12, 1)
    network = trained_resnet()
    return Case(
        {"model": trained_resnet(), "normalize": (MEAN, STD)},
        loader(images, labels, shuffle=True),
        lambda pixels: network(normalized(pixels)),
        images,
        labels,
    )


def _plain(network, images, labels, data):
    return Case({"model": network}, data, lambda pixels: network(pixels.float() / 255), images, labels)


def _large():
    images, labels = random_images(4, (3, 224, 224), 1000)
    return _plain(small_net(3, 1000, stride=16), images, labels, (images, labels))


def _grey():
    images, labels = random_images(10, (1, 28, 28), 10)
    return _plain(small_net(1, 10), images, labels, ((images[:, 0].numpy() / 255).astype(np.float32), labels.numpy()))


def _half_images(dtype):
    images, labels = random_images(10, (3, 12, 12), 2)
    rounded = (images.float() / 255).to(dtype)
    network = small_net(3, 2)
    return Case({"model": network}, (rounded, labels), lambda _: network(rounded.float()), images, labels)


def _half_model(dtype):
    images, labels = random_images(10, (3, 12, 12), 3)
    network = small_net(3, 3).to(dtype)
    return Case(
        {"model": network}, (images, labels), lambda pixels: network((pixels.float() / 255).to(dtype)), images, labels
    )


def _lambda():
    """A callable that is no module and returns probabilities of two classes."""
    images, labels = random_images(10, (3, 8, 8), 2)

    def probabilities(inputs):
        return torch.stack([inputs.mean((1, 2, 3)), 1 - inputs.mean((1, 2, 3))], 1)

    return Case(
        {"model": probabilities, "outputs": "probabilities"},
        Records(images, labels),
        lambda pixels: probabilities(pixels.float() / 255),
        images,
        labels,
    )


CASES = {
    "torchvision's ResNet": _resnet,
    "224 x 224, 1,000 classes": _large,
    "28 x 28, one channel": _grey,
    "float16 images": lambda: _half_images(torch.float16),
    "bf16 images": lambda: _half_images(torch.bfloat16),
    "float16 model": lambda: _half_model(torch.float16),
    "bf16 model": lambda: _half_model(torch.bfloat16),
    "a function with probabilities": _lambda,
}


def write_module(folder, name="mine"):
    """Write a module with a network, data, an attack, a vote, a noise and a recipe of the user's, and its weights."""
    folder.joinpath(f"{name}.py").write_text(MODULE)
    save_file(trained_weights(), folder / "w.safetensors")
    torch.save({"state_dict": trained_weights(), "epoch": 3}, folder / "w.pth")
    return json.dumps({"classes": 2})


MODULE = '''
import numpy as np
import torch
from real.foreign import Records, ResNet, separable_images
from torch.utils.data import DataLoader, TensorDataset


def make(classes, width=8):
    return ResNet(num_classes=classes, width=width)


def data():
    images, labels = separable_images(12, 1)
    return DataLoader(TensorDataset(images.float() / 255, labels), batch_size=5, shuffle=True)


def records():
    return Records(*separable_images(12, 1))


def training():
    return separable_images(40, 2)


def attack(model, inputs, labels, generator=None):
    """Darken or brighten the whole image, whichever the model likes less."""
    with torch.no_grad():
        both = torch.stack([(inputs - 8 / 255).clamp(0, 1), (inputs + 8 / 255).clamp(0, 1)])
        losses = torch.stack([torch.nn.functional.cross_entropy(model(x), labels, reduction="none") for x in both])
    return both[losses.argmax(0), torch.arange(len(labels))]


def squared(logits):
    return logits.softmax(-1) ** 2


def salt(inputs):
    """Noise of a few white pixels; it takes the images alone."""
    return (torch.rand_like(inputs) < 0.02) * (1 - inputs)


def recipe():
    from smoothed.training.config import TrainingConfig

    return TrainingConfig(data="custom", attack="fgsm", eps=2 / 255, epochs=1, batch_size=12, injection="none")
'''
