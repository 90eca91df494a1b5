"""The bundled sample against the set that it was taken from."""

import torch

from smoothed.data.cifar import load_cifar
from smoothed.data.sample import load_sample

# As `assets/README.md` says, these two came from JPEGs in one copy of the set.
LOSSY = {359, 641}


def test_a_thousand_images_of_ten_classes():
    sample = load_sample()
    assert sample.name == "cifar10 sample"
    assert sample.images.shape == (1000, 3, 32, 32)
    assert sample.images.dtype == torch.uint8
    assert sample.labels.shape == (1000,)
    assert sample.labels.dtype == torch.int64
    assert sample.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    # 100 a class on average, with a deviation of 9.5.
    assert all(60 < times < 140 for times in sample.labels.bincount(minlength=10).tolist())
    assert len(sample.images.flatten(1).unique(dim=0)) == 1000


def test_a_call_does_not_see_what_another_changed():
    load_sample().images.zero_()
    assert load_sample().images.any()


def test_its_images_are_those_of_the_test_set(full_data):
    sample, test = load_sample(), load_cifar("cifar10", "test", full_data)
    if torch.equal(sample.images[0], test.images[0]):  # the copy whose order the sample has
        assert torch.equal(sample.images, test.images[:1000])
        assert torch.equal(sample.labels, test.labels[:1000])
    # The official files hold the same images in another order.
    place = {image.numpy().tobytes(): i for i, image in enumerate(test.images)}
    found = {i: place.get(image.numpy().tobytes()) for i, image in enumerate(sample.images)}
    assert {i for i, at in found.items() if at is None} <= LOSSY
    assert all(test.labels[at] == sample.labels[i] for i, at in found.items() if at is not None)
    assert test.classes == sample.classes
