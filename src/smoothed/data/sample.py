"""The 1,000 CIFAR-10 test images that come with the package, as the default of every command."""

from importlib.resources import files

import numpy as np
import torch

from smoothed.data.imageset import ImageSet

SAMPLE = "cifar10-sample.npz"


def load_sample() -> ImageSet:
    """The first 1,000 CIFAR-10 test images (of the order `assets/README.md` names), uint8, losslessly stored."""
    with (files("smoothed.data") / "assets" / SAMPLE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"].astype(np.int64))
        return ImageSet("cifar10 sample", images, labels, tuple(arrays["classes"].tolist()))
