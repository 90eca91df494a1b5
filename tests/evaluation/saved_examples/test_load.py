"""Adversarial images of a file: which are taken, and which are refused."""

import pytest
import torch

from smoothed.data.imageset import ImageSet
from smoothed.errors import ArgumentError, CheckpointError, DataError
from smoothed.evaluation.fresh_votes import VoteCounts
from smoothed.evaluation.resume import fingerprint
from smoothed.evaluation.saved_examples.attack import AdversarialExamples, pixel_fingerprint, save_examples
from smoothed.evaluation.saved_examples.load import SavedExamples, attack_record

COUNT = 5
MISSING = object()
EPS = {"linf": 0.1, "l2": 0.5, "l0": 3}


@pytest.fixture
def data(generator):
    """Eight random images (3, 4, 4), none of whose pixels is near 0 or 1, of which the first five are attacked."""
    images = torch.randint(60, 190, (8, 3, 4, 4), generator=generator, dtype=torch.uint8)
    return ImageSet("random", images, torch.arange(8) % 3, ("a", "b", "c"))


@pytest.fixture
def write(data, tmp_path):
    """A function that writes images and a record of the attacked ones, with parts of either replaced."""

    def write(adversarial, stated="linf", **changes):
        clean = data.first(COUNT)
        none = torch.zeros(COUNT, dtype=torch.int64)
        votes = VoteCounts(none + 1, none, none + 1, none, none, none)
        record = {
            "model": "m", "weights": "w", "noise": "gaussian", "sigma": 0.1, "sigma_normalized": None,
            "data": "random", "images": COUNT, "labels": fingerprint({"labels": clean.labels}),
            "pixel_fingerprint": pixel_fingerprint(clean),
            "attack": "own", "eps": EPS[stated], "norm": stated,
        } | changes  # fmt: skip
        record = {name: value for name, value in record.items() if value is not MISSING}
        return save_examples(
            tmp_path / "made.safetensors", AdversarialExamples(adversarial, clean.labels, votes, votes), record
        )

    return write


def moved(data, norm, size):
    """The attacked images, the last one moved by `size` in `norm`, in float32."""
    images = data.first(COUNT).images / 255
    delta = torch.zeros(3, 16)
    if norm == "linf":
        delta[:] = size
    elif norm == "l2":
        delta[:] = size / 48**0.5
    else:
        delta[:, : int(size)] = 0.2
    images[-1] += delta.view(3, 4, 4)
    return images


@pytest.mark.parametrize("norm", ["linf", "l2", "l0"])
def test_images_on_the_sphere_are_taken_and_images_beyond_it_refused(data, write, norm):
    images = moved(data, norm, EPS[norm])
    given = SavedExamples.load(write(images, norm), data)
    assert torch.equal(given.adversarial, images)
    assert len(given.clean) == COUNT
    assert given.record["norm"] == norm
    beyond = EPS[norm] + (1 if norm == "l0" else 0.001)
    message = rf"within eps = {EPS[norm]:g} \({norm}\) of the clean ones, got a distance of {beyond:.6g}.* at image 4"
    with pytest.raises(CheckpointError, match=message):
        SavedExamples.load(write(moved(data, norm, beyond), norm), data)


def test_the_last_bit_of_a_float_changes_no_pixel(data, write):
    """As it does between devices: three pixels are changed, all others nearly none."""
    images = moved(data, "l0", 3) * (1 - 2**-23)
    SavedExamples.load(write(images, "l0"), data)


def test_batches_are_those_of_both(data, write):
    images = moved(data, "linf", 0.05)
    given = SavedExamples.load(write(images), data).first(4)
    inputs, made, labels = (torch.cat(parts) for parts in zip(*given.batches(3), strict=True))
    assert torch.equal(inputs, data.images[:4] / 255)
    assert torch.equal(made, images[:4])
    assert torch.equal(labels, data.labels[:4])
    with pytest.raises(DataError, match="images: expected 1 to 5"):
        given.load(write(images), data).first(6)


def test_other_data_is_refused(data, write):
    path = write(data.first(COUNT).images / 255)
    of_others = "data: expected the 5 images of random that were attacked to make .*, got other"
    flipped = ImageSet("other", data.images.flip(-1), data.labels, data.classes)
    with pytest.raises(ArgumentError, match=f"{of_others}, whose images differ"):
        SavedExamples.load(path, flipped)
    relabelled = ImageSet("other", data.images, data.labels.roll(1), data.classes)
    with pytest.raises(ArgumentError, match=f"{of_others}, whose labels differ"):
        SavedExamples.load(path, relabelled)
    with pytest.raises(ArgumentError, match=r"data: expected the 5 images .*, got random, which has 4"):
        SavedExamples.load(path, data.first(4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"eps": MISSING, "pixel_fingerprint": MISSING},
            "expected a record of `smoothed attack`, got one without pixel_fingerprint, eps",
        ),
        ({"norm": "l7"}, "norm: expected one of linf, l2, l0, got 'l7'"),
        ({"eps": -1}, "eps: expected a finite number of at least 0, got -1"),
        ({"images": 4}, "expected 4 images, labels and indices, got another number of them"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(data, write, changes, message):
    with pytest.raises(CheckpointError, match=rf"made.safetensors: {message}"):
        SavedExamples.load(write(data.first(COUNT).images / 255, **changes), data)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_values_that_are_no_image_are_refused(data, write, value):
    images = data.first(COUNT).images / 255
    images[2, 0, 1, 1] = value
    with pytest.raises(CheckpointError, match=r"made.safetensors: images: expected images in \[0, 1\], got"):
        SavedExamples.load(write(images, eps=2.0), data)


def test_images_of_another_size_are_refused(data, write):
    with pytest.raises(CheckpointError, match=r"expected images of shape \(3, 4, 4\), got \(3, 1, 1\)"):
        SavedExamples.load(write(data.first(COUNT).images[..., :1, :1] / 255), data)


def test_the_attack_record_is_named(data, write):
    assert attack_record(write(data.first(COUNT).images / 255))["model"] == "m"
