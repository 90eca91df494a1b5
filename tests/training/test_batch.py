"""How batches are made and cut, against counting and plain loops."""

import dataclasses

import pytest
import torch
from torch.nn import functional

from smoothed.errors import ArgumentError
from smoothed.rng.rows import RowGenerator, normal_
from smoothed.training.batch import Plan, Share

DIVISIONS = [(1, 1), (1, 3), (2, 1), (2, 2), (3, 5)]


def shares(processes, parts):
    return [Share(process, processes, parts) for process in range(processes)]


@pytest.mark.parametrize(("processes", "parts"), DIVISIONS)
@pytest.mark.parametrize("total", [15, 16, 100, 256])
def test_pieces(total, processes, parts):
    """In order, without gap or overlap, as evenly as whole numbers allow, and the same for every process."""
    pieces = shares(processes, parts)[0].pieces(total)
    assert all(share.pieces(total) == pieces for share in shares(processes, parts))
    assert len(pieces) == processes * parts
    assert [row for piece in pieces for row in piece] == list(range(total))
    sizes = [len(piece) for piece in pieces]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("processes", "parts"), DIVISIONS)
def test_whose_the_pieces_are(processes, parts):
    """The p-th process has the p-th run of `parts` pieces, and all take their own in turn."""
    pieces = list(Share(0, processes, parts).pieces(101))
    owners = [piece // parts for piece in range(len(pieces))]
    for process, share in enumerate(shares(processes, parts)):
        own = [piece for piece, owner in zip(pieces, owners, strict=True) if owner == process]
        assert share.own_pieces(101) == own
        for part in range(parts):
            at_once = [other.own_pieces(101)[part] for other in shares(processes, parts)]
            assert share.concurrent_pieces(101, part) == at_once


def test_a_batch_too_small_to_cut():
    assert [len(piece) for piece in Share(0, 2, 3).pieces(6)] == [1] * 6
    message = "batch_size: expected at least 6, one image for each part of each process, got 5"
    with pytest.raises(ArgumentError, match=message):
        Share(0, 2, 3).pieces(5)


def test_a_run_whose_batch_is_too_small_is_refused_before_its_first_step(image_set, make_run, network):
    with pytest.raises(ArgumentError, match="batch_size: expected at least 5"):
        make_run(image_set(4), network, architecture="custom", injection="none", accumulation=5)


# Which images a step sees.


def batches(plan, data, share=None, step=0):
    return list(plan.batches(data, share or Share(), step))


@pytest.mark.parametrize(("images", "batch_size", "per_epoch"), [(20, 6, 3), (18, 6, 3), (9, 12, 1)])
@pytest.mark.parametrize("replays", [1, 3])
def test_every_epoch_passes_over_the_set(image_set, images, batch_size, per_epoch, replays):
    """In another order each time; images that fill no batch wait, and a small set is one batch."""
    plan, data = Plan(images, batch_size, 4, replays, seed=1), image_set(images)
    found = batches(plan, data)
    assert plan.steps_per_epoch == per_epoch * replays
    assert len(found) == plan.steps == 4 * per_epoch * replays
    for step, batch in enumerate(found):
        assert (batch.step, batch.number, batch.epoch) == (step, step // replays, step // (per_epoch * replays))
        assert batch.ends_epoch == ((step + 1) % (per_epoch * replays) == 0)
        assert batch.progress == step / len(found)
        assert batch.total == len(batch.labels) == min(images, batch_size)
        assert torch.equal(batch.images, data.images[batch.index])
        assert torch.equal(batch.labels, data.labels[batch.index])
        assert torch.equal(batch.index, found[step - step % replays].index)
    orders = []
    for epoch in range(4):
        seen = torch.cat([batch.index for batch in found if batch.epoch == epoch][::replays]).tolist()
        assert len(set(seen)) == len(seen) == per_epoch * min(images, batch_size)
        assert set(seen) <= set(range(images))
        orders.append(tuple(seen))
    assert len(set(orders)) == 4


def test_the_order_is_the_seeds():
    orders = [torch.cat([b.index for b in batches(Plan(64, 8, 1, 1, seed), Numbers(64))]) for seed in (1, 1, 2)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_all_images_leave_each_place_equally_often():
    """600 epochs of 10 images, 5 a batch: a place holds each image 60 times, with a deviation of 7.3."""
    found = batches(Plan(10, 5, 600, 1, seed=0), Numbers(10))
    firsts = torch.stack([batch.index[0] for batch in found[::2]])
    assert (firsts.bincount(minlength=10) - 60).abs().max() < 4.5 * 7.3


class Numbers:
    """A data set whose images are their own numbers, which remembers what it was asked."""

    def __init__(self, count):
        self.count = count
        self.asked = []

    def load(self, batches, seed=None):
        self.asked.append(([batch.tolist() for batch in batches], seed))
        for batch in batches:
            yield batch.view(-1, 1, 1, 1).expand(-1, 3, 8, 8).to(torch.uint8), batch


@pytest.mark.parametrize("step", [1, 5, 6, 7, 17])
def test_a_run_goes_on_where_it_stopped(step):
    """At any step, also between two steps on one batch; batches that are over are not read again."""
    plan = Plan(20, 6, 3, 2, seed=4)
    whole, data = batches(plan, Numbers(20)), Numbers(20)
    rest = batches(plan, data, step=step)
    for ours, theirs in zip(rest, whole[step:], strict=True):
        assert ours.step == theirs.step
        assert torch.equal(ours.index, theirs.index)
        (first,), (second,) = (list(batch.parts(Share(), 4)) for batch in (ours, theirs))
        assert torch.equal(first.clean, second.clean)
    assert data.asked[0][0][0] == rest[0].index.tolist()


def test_files_are_cropped_anew_in_each_epoch():
    data = Numbers(20)
    batches(Plan(20, 6, 3, 2, seed=4), data)
    assert len({seed for _, seed in data.asked}) == 3


# How a batch is cut.


@pytest.mark.parametrize(("processes", "parts"), DIVISIONS)
def test_cut_batches_give_each_image_what_the_whole_one_does(image_set, processes, parts):
    """The same crop and flip, label, index and place, and the same randomness, at each step."""
    data, plan = image_set(150), Plan(150, 70, 1, 1, seed=6)
    whole = batches(plan, data)
    cut = [batches(plan, data, share) for share in shares(processes, parts)]
    for step, batch in enumerate(whole):
        (expected,) = batch.parts(Share(), 6)
        found = [
            part for share, own in zip(shares(processes, parts), cut, strict=True) for part in own[step].parts(share, 6)
        ]
        assert len(found) == processes * parts
        for name in ("clean", "labels", "index", "positions"):
            pieces = torch.cat([getattr(part, name) for part in found])
            assert torch.equal(pieces, getattr(expected, name)), name
        assert expected.positions.tolist() == list(range(70))
        for _ in range(2):
            normals = [normal_(torch.empty(len(part.labels), 5), part.row_generator) for part in found]
            assert torch.equal(torch.cat(normals), normal_(torch.empty(70, 5), expected.row_generator))
        for part in found:
            assert (part.total, part.epoch, part.progress) == (70, batch.epoch, batch.progress)
            assert part.clean.is_contiguous(memory_format=torch.channels_last)


def test_each_image_is_a_crop_of_its_own_padded_self(image_set):
    """Found among all 2 x 81 crops of 4 pixels of zeros around it, by looking at each."""
    data, plan = image_set(24), Plan(24, 24, 1, 1, seed=6)
    (part,) = batches(plan, data)[0].parts(Share(), 6)
    places = set()
    for image, index in zip(part.clean, part.index, strict=True):
        padded = functional.pad(data.images[index].float() / 255, [4] * 4)
        crops = {
            (top, left, flip): padded[:, top : top + 8, left : left + 8].flip([2] if flip else [])
            for top in range(9)
            for left in range(9)
            for flip in (False, True)
        }
        (place,) = [key for key, crop in crops.items() if torch.equal(crop, image)]
        places.add(place)
    assert len(places) > 15
    assert {flip for _, _, flip in places} == {False, True}


def test_crops_are_one_batchs_and_rows_one_steps(image_set):
    """All steps on a batch see the same crops, the x of Shafahi et al., algorithm 1, with noise of their own."""
    data, plan = image_set(20), Plan(20, 20, 2, 3, seed=6)
    parts = [next(batch.parts(Share(), 6)) for batch in batches(plan, data)]
    assert all(torch.equal(part.clean, parts[0].clean) for part in parts[:3])
    order = [part.index.argsort() for part in (parts[0], parts[3])]
    assert not torch.equal(parts[0].clean[order[0]], parts[3].clean[order[1]])
    normals = [normal_(torch.empty(20, 5), part.row_generator) for part in parts]
    assert all(not torch.equal(normals[i], normals[j]) for i in range(6) for j in range(i))


def test_passes_of_a_step_see_the_same_images_with_numbers_of_their_own(image_set):
    (batch,) = batches(Plan(20, 20, 1, 1, seed=6), image_set(20))
    share = Share(parts=2)
    once, twice = list(batch.parts(share, 6)), list(batch.parts(share, 6, passes=2))
    assert [part.repetition for part in twice] == [0, 0, 1, 1]
    for first, again in zip(twice[:2], twice[2:], strict=True):
        assert torch.equal(first.clean, again.clean)
        assert torch.equal(first.positions, again.positions)
    drawn = [[normal_(torch.empty(10, 5), part.row_generator) for part in parts] for parts in (once, twice)]
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1][:2], strict=True))
    assert not any(torch.equal(drawn[1][i], drawn[1][j]) for i in range(4) for j in range(i))


def test_another_seed_other_crops(image_set):
    (batch,) = batches(Plan(20, 20, 1, 1, seed=6), image_set(20))
    first, again, other = (next(batch.parts(Share(), seed)).clean for seed in (6, 6, 7))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_batches_and_parts_are_values(image_set):
    (batch,) = batches(Plan(4, 4, 1, 1, seed=0), image_set(4))
    (part,) = batch.parts(Share(), 0)
    assert isinstance(part.row_generator, RowGenerator)
    for value in (batch, part):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.total = 5
