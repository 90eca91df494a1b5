"""Small data sets in the layout of CIFAR's official files, and in folders of image files."""

import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from smoothed.data.cifar import CIFARS


class Python2Pickler(pickle._Pickler):
    """Pickles bytes as Python 2 did its str, which is what the official files hold."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, obj):
        short = len(obj) < 256
        opcode = pickle.SHORT_BINSTRING if short else pickle.BINSTRING
        self.write(opcode + struct.pack("<B" if short else "<i", len(obj)) + obj)
        self.memoize(obj)

    dispatch[bytes] = save_bytes


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(content)


@pytest.fixture
def dump_python2():
    """A function (path, content) that pickles as Python 2 did."""
    return dump


@pytest.fixture
def write_cifar():
    """A function (root, name, images a file) that writes a CIFAR of random pixels, and returns its (images, labels).

    Both are dicts by split. Labels go round: 0, 1, ..., K - 1, 0, ...
    """

    def write(root, name, count=4):
        cifar, rng = CIFARS[name], np.random.default_rng(7)
        images, labels = {}, {}
        for split, files in cifar.files.items():
            pixels = rng.integers(0, 256, (count * len(files), 3 * 32 * 32), dtype=np.uint8)
            classes = [i % cifar.num_classes for i in range(len(pixels))]
            for i, file in enumerate(files):
                part = slice(i * count, (i + 1) * count)
                content = {b"data": pixels[part], cifar.label_key: classes[part], b"filenames": [b"a.png"] * count}
                dump(root / cifar.folder / file, content)
            images[split], labels[split] = pixels.reshape(-1, 3, 32, 32), classes
        names = [b"class %d" % i for i in range(cifar.num_classes)]
        dump(root / cifar.folder / cifar.classes_file, {cifar.classes_key: names})
        return images, labels

    return write


@pytest.fixture
def write_image():
    """A function (path, width, height, seed) that writes an image of smooth random colours, and returns it."""

    def write(path, width=20, height=16, seed=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        image.save(path)
        return image

    return write


@pytest.fixture
def write_folder(write_image):
    """A function (root, images by folder) that writes that many PNG files of several sizes into each folder."""

    def write(root, counts):
        for number, (folder, count) in enumerate(counts.items()):
            for i in range(count):
                write_image(root / folder / f"{i:03}.png", 12 + 5 * (i % 3), 12 + 3 * (i % 4), 1000 * number + i)

    return write
