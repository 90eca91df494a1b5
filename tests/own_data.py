"""Data sets as users have them: items, columns and streams of the same seventy random images."""

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

COUNT = 70  # more than the images that a worker reads at a time
LABELS = [(3 * i + i // 7) % 4 for i in range(COUNT)]
BYTES = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 6, 5), dtype=np.uint8)
FLOATS = (BYTES / 255).astype(np.float32)
GREY = BYTES[:, 0]
NAMES = ("ant", "bee", "cat", "dog")


class Items(Dataset):
    """Items made by a function of the index; records the indices that are read."""

    def __init__(self, item, count=COUNT, **attributes):
        self.item, self.count, self.read = item, count, []
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        self.read.append(index)
        return self.item(index)


class FaceLike:
    """Looks like a data set of Hugging Face's `datasets`: items are dicts, columns are read by name."""

    def __init__(self, rows, names=None, image="image", label="label", format_type=None):
        self.rows, self.image, self.label = rows, image, label
        self.column_names = [image, label]
        self.features = {image: object(), label: type("ClassLabel", (), {"names": names})()}
        self.format = {"type": format_type}

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        if isinstance(key, str):
            return [row[[self.image, self.label].index(key)] for row in self.rows]
        return dict(zip((self.image, self.label), self.rows[key], strict=True))


class Stream(IterableDataset):
    def __init__(self, item, count=COUNT):
        self.item, self.count = item, count

    def __iter__(self):
        return iter([self.item(i) for i in range(self.count)])


def tensor_item(i):
    return torch.from_numpy(BYTES[i]), LABELS[i]


def float_item(i):
    return torch.from_numpy(FLOATS[i]), torch.tensor(LABELS[i])


def pil_item(i):
    return Image.fromarray(BYTES[i].transpose(1, 2, 0)), LABELS[i]


def pil_rows():
    return [pil_item(i) for i in range(COUNT)]


def as_dict(items):
    """A collate function as of an image processor: floats, under other names."""
    images = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image, _ in items])
    return {"pixel_values": images, "labels": torch.tensor([label for _, label in items])}


def as_dict_of_dicts(items):
    return as_dict([(item["image"], item["label"]) for item in items])


T, N = torch.from_numpy, np.array(LABELS)


def concatenated(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def zeros(*shape, dtype=torch.uint8):
    return torch.zeros(shape, dtype=dtype)
