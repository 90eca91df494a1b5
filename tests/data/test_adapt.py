"""Every kind of data against the plain arrays that it stands for."""

import gc
import multiprocessing
from collections import UserDict

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from own_data import (
    BYTES,
    COUNT,
    FLOATS,
    GREY,
    LABELS,
    NAMES,
    FaceLike,
    Items,
    N,
    Stream,
    T,
    as_dict,
    as_dict_of_dicts,
    concatenated,
    float_item,
    pil_item,
    pil_rows,
    tensor_item,
)
from smoothed.data.adapt import as_images, as_training
from smoothed.data.images import has_named_classes
from smoothed.data.imageset import ImageSet
from smoothed.data.sample import load_sample
from smoothed.errors import ArgumentError, DataError

# A machine with one CPU is warned of two workers; Python 3.12 warns of forks beside torch's threads.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    gc.collect()  # an exception from a worker and the frames that it passed refer to each other
    assert multiprocessing.active_children() == []


def readonly(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def pair(images, labels=LABELS):
    return images, labels


CASES = {
    "uint8 tensors": (lambda: pair(T(BYTES), torch.tensor(LABELS)), BYTES),
    "float32 tensors": (lambda: pair(T(FLOATS), torch.tensor(LABELS, dtype=torch.int16)), FLOATS),
    "float64 tensors": (lambda: pair(T(BYTES / 255), torch.tensor(LABELS, dtype=torch.uint8)), FLOATS),
    "float16 tensors": (lambda: pair(T(FLOATS).half()), FLOATS.astype(np.float16).astype(np.float32)),
    "bfloat16 tensors": (lambda: pair(T(FLOATS).bfloat16()), T(FLOATS).bfloat16().float().numpy()),
    "tensors that need gradients": (lambda: pair(T(FLOATS.copy()).requires_grad_()), FLOATS),
    "channels-last tensors": (lambda: pair(T(FLOATS).contiguous(memory_format=torch.channels_last)), FLOATS),
    "grey tensors": (lambda: pair(T(GREY)), GREY[:, None]),
    "uint8 arrays": (lambda: pair(BYTES, N), BYTES),
    "a list of arrays": (lambda: [BYTES, N.astype(np.uint64)], BYTES),
    "read-only arrays": (lambda: pair(readonly(FLOATS), readonly(N.astype(np.int8))), FLOATS),
    "float64 arrays": (lambda: pair(BYTES / 255, N), FLOATS),
    "float16 arrays": (lambda: pair(FLOATS.astype(np.float16), N), FLOATS.astype(np.float16).astype(np.float32)),
    "big-endian arrays": (lambda: pair(FLOATS.astype(">f4"), N.astype(">i4")), FLOATS),
    "a view with other strides": (lambda: pair(BYTES[::-1, :, ::-1].copy()[::-1, :, ::-1], N), BYTES),
    "transposed arrays": (lambda: pair(BYTES.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2), N), BYTES),
    "grey arrays": (lambda: pair(GREY, N), GREY[:, None]),
    "an array and a tensor": (lambda: pair(BYTES, torch.tensor(LABELS)), BYTES),
    "a TensorDataset": (lambda: TensorDataset(T(BYTES), torch.tensor(LABELS)), BYTES),
    "three tensors": (lambda: (TensorDataset(T(GREY), T(BYTES), torch.tensor(LABELS)), {"keys": (1, 2)}), BYTES),
    "items of tensors": (lambda: Items(tensor_item), BYTES),
    "items of floats": (lambda: Items(float_item), FLOATS),
    "items of float64": (lambda: Items(lambda i: (T(BYTES[i] / 255), N[i])), FLOATS),
    "items of grey tensors": (lambda: Items(lambda i: (T(GREY[i]), T(N[i : i + 1]))), GREY[:, None]),
    "items of PIL images": (lambda: Items(pil_item), BYTES),
    "items of grey PIL images": (lambda: Items(lambda i: (Image.fromarray(GREY[i]), LABELS[i])), GREY[:, None]),
    "items of RGBA images": (lambda: Items(lambda i: (pil_item(i)[0].convert("RGBA"), LABELS[i])), BYTES),
    "items of arrays": (lambda: Items(lambda i: (BYTES[i].transpose(1, 2, 0), N[i])), BYTES),
    "items of grey arrays": (lambda: Items(lambda i: (GREY[i], N[i])), GREY[:, None]),
    "items of float arrays": (lambda: Items(lambda i: (FLOATS[i].transpose(1, 2, 0), N[i])), FLOATS),
    "items that are lists": (lambda: Items(lambda i: list(tensor_item(i))), BYTES),
    "items that are dicts": (lambda: Items(lambda i: dict(zip(("img", "label"), pil_item(i), strict=True))), BYTES),
    "items that are mappings": (
        lambda: Items(lambda i: UserDict(pixel_values=T(FLOATS[i]), labels=LABELS[i])),
        FLOATS,
    ),
    "items with keys": (
        lambda: (Items(lambda i: {"x": T(BYTES[i]), "label": -5, "image": 0, "y": LABELS[i]}), {"keys": ("x", "y")}),
        BYTES,
    ),
    "longer items": (lambda: (Items(lambda i: (LABELS[i], "id", T(BYTES[i]))), {"keys": (2, 0)}), BYTES),
    "a list of items": (pil_rows, BYTES),
    "a Subset": (lambda: Subset(Items(lambda i: tensor_item(COUNT - 1 - i)), range(COUNT - 1, -1, -1)), BYTES),
    "a ConcatDataset": (
        lambda: ConcatDataset([Subset(Items(pil_item), range(9)), Subset(Items(pil_item), range(9, COUNT))]),
        BYTES,
    ),
    "a data set like Hugging Face's": (lambda: FaceLike(pil_rows(), NAMES), BYTES),
    "the same under other keys": (
        lambda: (FaceLike(pil_rows(), NAMES, "picture", "kind"), {"keys": ("picture", "kind")}),
        BYTES,
    ),
    "a loader": (lambda: DataLoader(Items(tensor_item), batch_size=8), BYTES),
    "a loader of tensors": (lambda: DataLoader(TensorDataset(T(FLOATS), torch.tensor(LABELS)), batch_size=8), FLOATS),
    "a shuffled loader that drops images": (
        lambda: DataLoader(Items(float_item), batch_size=8, shuffle=True, drop_last=True),
        FLOATS,
    ),
    "a loader with workers": (lambda: DataLoader(Items(tensor_item), batch_size=8, num_workers=2), BYTES),
    "a loader without batches": (lambda: DataLoader(Items(tensor_item), batch_size=None), BYTES),
    "a loader of PIL images": (lambda: DataLoader(Items(pil_item), batch_size=8), BYTES),
    "a loader that collates": (lambda: DataLoader(Items(pil_item), batch_size=8, collate_fn=as_dict), FLOATS),
    "a loader that collates with workers": (
        lambda: DataLoader(Items(pil_item), batch_size=8, collate_fn=as_dict, num_workers=2),
        FLOATS,
    ),
    "a loader like Hugging Face's": (lambda: DataLoader(FaceLike(pil_rows(), NAMES), batch_size=8), BYTES),
    "a stream": (lambda: (Stream(pil_item), {"count": COUNT}), BYTES),
    "a loader of a stream": (lambda: (DataLoader(Stream(float_item), batch_size=8), {"count": COUNT}), FLOATS),
    "a generator of batches": (
        lambda: ((pair(T(BYTES[i : i + 9]), LABELS[i : i + 9]) for i in range(0, COUNT, 9)), {"count": COUNT}),
        BYTES,
    ),
    "an image set": (lambda: ImageSet("mine", T(BYTES), torch.tensor(LABELS), NAMES), BYTES),
    "an image set of floats": (lambda: ImageSet("mine", T(FLOATS), torch.tensor(LABELS), NAMES), FLOATS),
}


def made(case):
    data = CASES[case][0]()
    options = {}
    if isinstance(data, tuple) and isinstance(data[1], dict):
        data, options = data
    return as_images(data, **options)


@pytest.mark.parametrize("case", CASES)
def test_is_the_arrays_it_stands_for(case):
    images, expected = made(case), CASES[case][1]
    as_float = expected if expected.dtype == np.float32 else expected.astype(np.float32) / np.float32(255)
    order = [5, 0, 5, 69, 33]

    (pixels, labels), (empty, none), _ = images.load(
        [torch.tensor(order), torch.tensor([], dtype=int), torch.arange(3)]
    )
    assert (pixels.dtype, labels.dtype) == (torch.uint8 if expected.dtype == np.uint8 else torch.float32, torch.int64)
    np.testing.assert_array_equal(pixels.numpy(), expected[order])
    assert labels.tolist() == [LABELS[i] for i in order]
    assert (empty.shape, empty.dtype, none.tolist()) == ((0, *expected.shape[1:]), pixels.dtype, [])

    assert len(images) == COUNT
    assert (images.labels.dtype, images.labels.tolist()) == (torch.int64, LABELS)
    assert images.classes == (NAMES if images.named_classes else ("0", "1", "2", "3"))
    whole = list(images.batches(32))
    assert [len(labels) for _, labels in whole] == [32, 32, 6]
    pixels, labels = concatenated(whole)
    assert pixels.dtype == torch.float32
    assert not pixels.requires_grad
    np.testing.assert_array_equal(pixels.numpy(), as_float)
    assert labels.tolist() == LABELS

    part = images.subset(images.labels == 2, "part").subset(slice(1, 4))
    at = [i for i in range(COUNT) if LABELS[i] == 2][1:4]
    assert (part.name, len(part), part.classes) == ("part", 3, images.classes)
    ((pixels, labels),) = part.batches(9)
    np.testing.assert_array_equal(pixels.numpy(), as_float[at])
    assert labels.tolist() == part.labels.tolist() == [2, 2, 2]
    assert images.first(7).labels.tolist() == LABELS[:7]
    assert images.first(None) is images
    with pytest.raises(DataError, match=f"images: expected 1 to {COUNT} .*, got 71"):
        images.first(71)
    moved = images.to("meta" if "an image set" not in case else "cpu")
    assert next(iter(moved.batches(2)))[0].device.type == next(iter(moved.load([torch.arange(2)])))[0].device.type
    assert len(moved) == COUNT


@pytest.mark.parametrize("images", [BYTES, FLOATS, FLOATS.astype(np.float64), GREY])
@pytest.mark.parametrize("convert", [np.copy, lambda array: T(array.copy())])
def test_arrays_are_neither_written_to_nor_copied(images, convert):
    mine, labels = convert(images), convert(N)
    address = mine.__array_interface__["data"][0] if isinstance(mine, np.ndarray) else mine.data_ptr()
    made = as_images((mine, labels))
    for batch, theirs in (*made.batches(16), *made.load([torch.arange(9)])):
        batch.zero_()
        theirs.zero_()
    assert made.source.images is mine
    part = made.subset(slice(2)).source.images
    assert part is mine
    np.testing.assert_array_equal(np.asarray(mine), images)
    np.testing.assert_array_equal(np.asarray(labels), N)
    assert address == (mine.__array_interface__["data"][0] if isinstance(mine, np.ndarray) else mine.data_ptr())
    mine[3] = 0
    assert made.subset(torch.tensor([3])).batches(1).__next__()[0].sum() == 0


def test_a_file_mapped_to_memory_is_read_batch_by_batch(tmp_path):
    np.save(tmp_path / "images.npy", BYTES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    images = as_images((mapped, N))
    assert images.source.images is mapped
    np.testing.assert_array_equal(concatenated(images.load([torch.arange(COUNT)]))[0].numpy(), BYTES)


def test_names_of_classes():
    named = Items(tensor_item, classes=list(NAMES))
    face = FaceLike(pil_rows(), NAMES)
    renamed = DataLoader(face, collate_fn=as_dict_of_dicts)
    for data in (renamed, named, Subset(named, [0, 1]), DataLoader(named), ConcatDataset([named, named]), face):
        images = as_images(data)
        assert (images.classes, images.named_classes, has_named_classes(images)) == (NAMES, True, True)
    assert as_images(Items(tensor_item, classes=[("ant", "emmet"), "bee", "cat", "dog"])).classes[0] == "ant, emmet"
    for data in (
        Items(tensor_item, classes=list(NAMES), target_transform=int),
        ConcatDataset([named, Items(tensor_item)]),
        Items(tensor_item, classes=4),
        FaceLike(pil_rows()),
        (BYTES, N),
    ):
        images = as_images(data)
        assert (images.classes, images.named_classes) == (("0", "1", "2", "3"), False)
    assert has_named_classes(load_sample())


def test_a_label_without_a_name():
    for labels in ({"targets": LABELS}, {}):
        with pytest.raises(
            ArgumentError, match=r"data: expected labels in 0\.\.2, because the data set names 3 classes"
        ):
            list(as_images(Items(tensor_item, classes=NAMES[:3], **labels)).batches(COUNT))


def test_names_of_sets():
    face = FaceLike(pil_rows(), NAMES)
    face.info, face.split = type("Info", (), {"dataset_name": "beans"})(), "test"
    for data, name in (
        ((BYTES, N), "arrays"),
        (Items(tensor_item), "Items"),
        (DataLoader(Subset(Items(tensor_item), [1])), "Items"),
        (DataLoader(TensorDataset(torch.from_numpy(BYTES), torch.from_numpy(N))), "TensorDataset"),
        (face, "beans test"),
        (pil_rows(), "images"),
        (load_sample(), "cifar10 sample"),
    ):
        assert as_images(data).name == name
        assert as_images(data, name="mine").name == "mine"
        assert as_images(data, count=1).name == name
    assert as_images("sample", name="mine").name == "mine"


def test_strings_paths_and_sets_of_our_own(tmp_path, write_folder):
    sample = load_sample()
    assert torch.equal(as_images("sample", count=9).images, sample.images[:9])
    assert as_images(sample) is sample
    write_folder(tmp_path / "flowers", {f"{split}/{name}": 5 for split in ("train", "test") for name in "ab"})
    for data in (tmp_path / "flowers", str(tmp_path / "flowers"), f"imagefolder:{tmp_path / 'flowers'}"):
        assert as_images(data).name == "flowers test"
        assert as_images(data, "train").name == "flowers train"
    assert as_training(tmp_path / "flowers")[0] == f"imagefolder:{tmp_path / 'flowers'}"


def test_late_errors_of_arrays():
    images = torch.zeros(300, 1, 2, 2)
    images[222, 0, 1, 0], images[223] = 1.5, torch.nan
    made = as_images((images, [0] * 300))
    assert len(list(made.first(222).batches(100))) == 3
    for number, got in ((222, r"values in \[0, 1.5\]"), (223, "NaN")):
        with pytest.raises(ArgumentError, match=rf"images in \[0, 1\], got {got} in image {number}"):
            list(made.subset(slice(number, 300)).batches(9))
    images[222:] = torch.tensor(1 + 5e-7)
    assert as_images((images, [0] * 300)).subset(slice(222, 300)).batches(9).__next__()[0].max() == 1


def test_training_and_validation():
    name, train, held_out = as_training((BYTES, N))
    assert (name, train.name, held_out.name) == ("arrays", "arrays train", "arrays validation")
    assert (len(train), len(held_out)) == (63, 7)
    assert train.classes == held_out.classes == ("0", "1", "2", "3")
    images = torch.cat([concatenated(part.load([torch.arange(len(part))]))[0] for part in (train, held_out)])
    assert {image.numpy().tobytes() for image in images} == {image.tobytes() for image in BYTES}
    assert train.source.images is BYTES

    data = Items(float_item, targets=LABELS, classes=NAMES)
    name, train, held_out = as_training(data, validation=DataLoader(Items(float_item, count=5)), name="mine")
    assert (name, train.name, held_out.name) == ("mine", "mine", "Items")
    assert (len(train), len(held_out), train.classes) == (COUNT, 5, NAMES)


def test_validation_of_a_name(tmp_path, write_cifar):
    write_cifar(tmp_path, "cifar10", count=1010)
    name, train, held_out = as_training(str(tmp_path))
    assert (name, len(train), len(held_out)) == ("cifar10", 50, 5000)
    name, train, held_out = as_training(tmp_path, validation=(torch.zeros(3, 3, 32, 32), [0, 9, 1]))
    assert (name, len(train), len(held_out)) == ("cifar10", 50, 3)
    assert as_training((BYTES, N), validation=(BYTES[:9], N[:9]))[2].name == "arrays"
