"""Data that are refused, with what to do instead."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from own_data import NAMES, Items, Stream, tensor_item, zeros
from smoothed.data.adapt import as_images, as_training
from smoothed.errors import ArgumentError, DataError


def one_item(image, label=0):
    return [(image, label)] * 3


UINT8, FLOAT = zeros(4, 3, 8, 8), zeros(4, 3, 8, 8, dtype=torch.float32)
FOUR = [0, 1, 2, 3]
ERRORS = {
    "channels-last arrays": (
        (np.zeros((4, 8, 8, 3), np.uint8), FOUR),
        r"data: expected images of shape \(N, C, H, W\), got shape \(4, 8, 8, 3\); pass images\.transpose\(0, 3",
    ),
    "channels-last tensors": ((zeros(4, 28, 28, 1), FOUR), r"pass images\.permute\(0, 3, 1, 2\), which copies nothing"),
    "one image": ((zeros(8, 8), [0]), r"images of shape \(N, C, H, W\) or \(N, H, W\), got .*; .*images\[None\]"),
    "no images": ((zeros(0, 3, 8, 8), []), r"data: expected at least one image, got shape \(0, 3, 8, 8\)"),
    "integers": ((UINT8.long(), FOUR), "images of type uint8 or float, got torch.int64 in the array; convert pixels"),
    "int arrays": ((UINT8.numpy().astype(int), FOUR), "images of type uint8 or float, got int64 in the array; convert"),
    "bytes as floats": (
        (FLOAT + 200, FOUR),
        r"images in \[0, 1\], got values in \[200, 200\] in image 0; divide pixels",
    ),
    "normalised": ((FLOAT - 2, FOUR), r"got values in \[-2, -2\] in image 0; divide .*normalize=\(mean, std\)"),
    "NaN": ((FLOAT.numpy() * np.nan, FOUR), r"images in \[0, 1\], got NaN in image 0; repair or leave out this image"),
    "no labels": (UINT8, r"data: expected a name, .*got Tensor of torch.uint8 \(4, 3, 8, 8\); pass labels too"),
    "few labels": ((UINT8, FOUR[1:]), r"one label per image, shape \(4,\), got labels of shape \(3,\)"),
    "label column": ((UINT8, [[0]] * 4), r"got labels of shape \(4, 1\); pass labels\[:, 0\]"),
    "one-hot": (
        (UINT8, np.eye(4, dtype=int)),
        r"got labels of shape \(4, 4\); convert one-hot labels with labels.argmax",
    ),
    "float labels": (
        (UINT8, torch.ones(4)),
        "labels that are integers, got labels of type torch.float32; convert them",
    ),
    "float array": ((UINT8, np.ones(4)), "labels that are integers, got labels of type float64; convert them to int64"),
    "bool labels": ((UINT8, np.ones(4, bool)), "labels that are integers, got labels of type bool; convert them"),
    "text labels": ((UINT8, ["a"] * 4), "labels that are integers, got list as labels"),
    "a number": ((UINT8, 3), r"one label per image, shape \(4,\), got labels of shape \(\)"),
    "ragged labels": ((UINT8, [[1], [1, 2], 3, 4]), "labels that are integers, got list as labels"),
    "negative label": (
        (UINT8, [0, 1, -1, 2]),
        "labels of at least 0, got -1 for image 2; a negative label often means",
    ),
    "lists": (([UINT8[0]], [0]), "images in one tensor or NumPy array, got list as images; stack them"),
    "nothing": (None, "data: expected a name, a folder, a DataLoader, .*, got None"),
    "a number alone": (3, "data: expected a name, a folder, .*got 3"),
    "a class": (Items, "data: expected a name, a folder, .*got type"),
    "bytes": (b"sample", "data: expected a name, a folder, .*got bytes"),
    "a dict of splits": (
        {"train": 1, "test": 2},
        r"got a dict with 'train', 'test'; pass one of them, .*data\['train'\]",
    ),
    "no items": ([], "data: expected at least one image, got an empty list"),
    "no length": (Items(tensor_item, count="many"), "a data set with a length, got a Items without __len__; define"),
    "triples": ([(UINT8[0], 0, 0)], r"pairs \(image, label\), got 3 values in image 0; .*keys=\(0, 1\)"),
    "unknown keys": (
        [{"x": 0, "y": 0}],
        r"items with 'image' and 'label' or .*, got a mapping with 'x', 'y' in image 0; name the two keys: keys",
    ),
    "items of images": (
        [UINT8[0]],
        r"pairs \(image, label\) or mappings, got Tensor of torch.uint8 \(3, 8, 8\) in image",
    ),
    "items of text": (one_item("a.png"), "tensors .*, PIL images or NumPy .*, got 'a.png' in image 0; convert them in"),
    "items of batches": ([(UINT8, FOUR)], r"shape \(C, H, W\), got shape \(4, 3, 8, 8\) in image 0; pass the images"),
    "items in channels-last": (one_item(zeros(8, 8, 3)), r"shape \(8, 8, 3\) in image 0; use image.permute\(2, 0, 1\)"),
    "arrays in channels-first": (one_item(UINT8[0].numpy()), r"\(H, W, C\) or \(H, W\), got .*torch.from_numpy"),
    "items of integers": (one_item(UINT8[0].int()), "images of type uint8 or float, got torch.int32 in image 0"),
    "items normalised": (
        one_item(FLOAT[0] - 1),
        r"images in \[0, 1\], got values in \[-1, -1\] in image 0; .*normalize=",
    ),
    "32-bit PIL images": (
        one_item(Image.new("F", (4, 4))),
        "8-bit images, got 32-bit pixels of unknown range in image 0",
    ),
    "float label": (one_item(UINT8[0], 1.0), "labels that are integers, got 1.0 in image 0"),
    "text label": (one_item(UINT8[0], "cat"), "labels that are integers, got 'cat' in image 0"),
    "soft label": (
        one_item(UINT8[0], torch.ones(4)),
        r"integers, got Tensor of torch.float32 \(4,\) in .*label.argmax",
    ),
    "negative item label": (one_item(UINT8[0], -1), "labels of at least 0, got -1 in image 0; a negative label often"),
    "a stream": (
        Stream(tensor_item),
        r"can be read by index, got a stream \(Stream\); state the number .*count=\.\.\.",
    ),
    "a loader of a stream": (
        DataLoader(Stream(tensor_item)),
        r"got a stream \(DataLoader of Stream\); state the number",
    ),
    "a generator": ((i for i in ()), r"got a stream \(generator\); state the number of images to copy into memory"),
    "an unknown sampler": (
        DataLoader(Items(tensor_item), sampler=type("Odd", (torch.utils.data.Sampler,), {"__iter__": None})()),
        r"a DataLoader that reads all .*, got one with a Odd; pass loader.dataset, or torch.utils.data.Subset\(loader.",
    ),
    "an unknown batch sampler": (
        DataLoader(Items(tensor_item), batch_sampler=[[1, 2], [0]]),
        "a DataLoader that reads all .*, got one with a list; pass loader.dataset",
    ),
    "a collate of two": (
        DataLoader(Items(tensor_item), collate_fn=lambda items: (UINT8, FOUR)),  # noqa: ARG005
        "one element in the images that collate_fn makes of one item, got 4 for image 0",
    ),
    "a collate of none": (
        DataLoader(Items(tensor_item), collate_fn=lambda items: (items[0][0][None], 3)),
        "one element in the labels that collate_fn makes of one item, got int for image 0",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    data, message = ERRORS[case]
    with pytest.raises(ArgumentError, match=message) as error:
        as_images(data)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("data: expected ")


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (
            [(0, UINT8[0])],
            {"keys": ("image", "label")},
            r"keys: expected positions in 0\.\.1, because items are tuples",
        ),
        (
            [{"x": 1}],
            {"keys": ("x", "y")},
            r"keys: expected keys of image and label .*got \('x', 'y'\) for a mapping with",
        ),
        ((UINT8, FOUR), {"count": 5}, "count: expected at most 4, the number of images in the data, got 5"),
        ((UINT8, FOUR), {"count": 0}, "count: expected an integer of at least 1, got 0"),
        (Stream(tensor_item), {"count": 71}, "count: expected at most 70, the number of images in the data, got 71"),
        (iter(()), {"count": 1}, "count: expected at most 0, the number of images in the data, got 1"),
        ("sample", {"count": 1001}, "count: expected at most 1000, the number of images in the data, got 1001"),
        (
            iter([(UINT8, [1])]),
            {"count": 1},
            "data: expected one label per image, got 4 images and 1 labels in element",
        ),
        ("sample", {"split": "val"}, "split: expected one of test, validation, train, got 'val'"),
    ],
)
def test_errors_of_options(data, options, message):
    with pytest.raises(ArgumentError, match=message):
        as_images(data, **options)


@pytest.mark.parametrize(
    ("data", "validation", "message"),
    [
        (
            (UINT8, FOUR),
            (zeros(4, 1, 8, 8), FOUR),
            r"validation: expected images of shape \(3, 8, 8\) as .*got \(1, 8, 8\)",
        ),
        ((UINT8, FOUR), (UINT8, [4] * 4), r"validation: expected labels in 0\.\.3 as in the training data, got 4"),
        (
            Items(tensor_item, classes=NAMES),
            Items(tensor_item, classes=NAMES[::-1]),
            "validation: expected the 4 classes of the training data, ant, bee, cat, dog, ..., got 4 classes, dog, cat",
        ),
        ((UINT8[:1], [0]), None, "data: expected at least two images, one of them for validation, got 1"),
    ],
)
def test_errors_of_training_data(data, validation, message):
    with pytest.raises(ArgumentError, match=message):
        as_training(data, validation=validation)
    with pytest.raises(DataError, match="got sample, which has test images only"):
        as_training(Path("sample"))
