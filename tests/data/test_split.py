"""The validation split against its definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smoothed.data.cifar import load_cifar
from smoothed.data.imageset import ImageSet
from smoothed.data.split import VALIDATION_IMAGES, VALIDATION_SEED, split_validation
from smoothed.errors import ArgumentError


def numbered(labels, name="some train"):
    """A set whose images hold their own place."""
    places = torch.arange(len(labels))
    pixels = torch.stack([places // 256, places % 256], dim=1).to(torch.uint8).view(-1, 1, 1, 2)
    return ImageSet(name, pixels, torch.tensor(labels), tuple("abcdefgh"))


def places(images):
    return [256 * high + low for high, low in images.images.view(-1, 2).tolist()]


@st.composite
def sets_and_counts(draw):
    sizes = draw(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) > 1))
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    order = draw(st.permutations(range(len(labels))) if len(labels) < 30 else st.just(range(len(labels))))
    return [labels[i] for i in order], draw(st.integers(1, len(labels) - 1)), draw(st.integers(0, 2**40))


@given(sets_and_counts())
def test_parts_are_disjoint_complete_in_order_and_stratified_to_one_image(case):
    labels, count, seed = case
    train, validation = split_validation(numbered(labels), count, seed)
    held_out, kept = places(validation), places(train)
    assert len(held_out) == count
    assert sorted(held_out + kept) == list(range(len(labels)))
    assert held_out == sorted(held_out)
    assert kept == sorted(kept)
    for part, at in ((train, kept), (validation, held_out)):
        assert part.labels.tolist() == [labels[i] for i in at]
    for label in set(labels):
        share = labels.count(label) * count / len(labels)
        assert abs(validation.labels.tolist().count(label) - share) < 1


def test_names():
    train, validation = split_validation(numbered([0, 1] * 5, "cifar10 train"), 2)
    assert (train.name, validation.name) == ("cifar10 train", "cifar10 validation")
    assert train.classes == validation.classes == tuple("abcdefgh")


def test_the_seed_decides():
    images = numbered([0, 1, 2, 3] * 50)
    first, again, other = (places(split_validation(images, 40, seed)[1]) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_every_image_is_held_out_as_often():
    images, times = numbered([0, 1] * 20), torch.zeros(40)
    for seed in range(2000):
        times[places(split_validation(images, 10, seed)[1])] += 1
    # 2000 draws at 1 in 4: 500 on average, with a deviation of 19; five of them for 40 counts.
    assert times.sum() == 20_000
    assert (times - 500).abs().max() < 97


def test_torchs_own_generator_is_not_touched():
    before = torch.random.get_rng_state()
    split_validation(numbered([0, 1] * 5), 2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_default_split_never_changes():
    # Another one would leak images that older models trained on into their validation set.
    assert (VALIDATION_IMAGES, VALIDATION_SEED) == (5000, 2020)
    labels = [0, 1, 2, 3] * 25
    shuffled = torch.randperm(100, generator=torch.Generator().manual_seed(2020)).tolist()
    by_class = [i for label in range(4) for i in shuffled if labels[i] == label]
    expected = sorted(by_class[k * 100 // 12] for k in range(12))
    assert places(split_validation(numbered(labels), 12)[1]) == expected


@pytest.mark.parametrize("count", [0, -1, 10, 11])
def test_a_count_that_leaves_nothing(count):
    with pytest.raises(ArgumentError, match=f"count: expected 1 to 9 validation images, got {count}"):
        split_validation(numbered([0, 1] * 5), count)


def test_cifar10_is_split_evenly(full_data):
    train, validation = split_validation(load_cifar("cifar10", "train", full_data))
    assert train.labels.bincount().tolist() == [4500] * 10
    assert validation.labels.bincount().tolist() == [500] * 10
