"""The 1,000 CIFAR-10 test images that come with the package, the default data of most commands."""

from importlib.resources import files

import numpy as np
import torch

from smoothed.data.imageset import ImageSet

SAMPLE_FILE = "cifar10-sample.npz"


def load_sample() -> ImageSet:
    """Load the bundled images, 1,000 of the CIFAR-10 test set; `assets/README.md` describes their origin."""
    with (
        (files("smoothed.data") / "assets" / SAMPLE_FILE).open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"].astype(np.int64))
        return ImageSet("cifar10 sample", images, labels, tuple(arrays["classes"].tolist()))
