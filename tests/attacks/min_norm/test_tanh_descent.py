"""The inner loop of Carlini and Wagner's attacks against torch's Adam and autograd, image by image."""

import pytest
import torch
from torch.testing import assert_close

from nearest import linear_model, random_images
from smoothed.attacks.losses import margin
from smoothed.attacks.min_norm.minimum import Search
from smoothed.attacks.min_norm.tanh_descent import descend, squared_l2
from smoothed.attacks.objectives import one_draw_loss
from smoothed.rng.seeds import seeded

MODEL, IMAGES = linear_model(3, 12), 6
C = torch.tensor([0.003, 1.0, 10.0, 20.0, 50.0, 1.0], dtype=torch.float64)
WEIGHT = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0], dtype=torch.float64)
"""Of each image in the penalty, so that a penalty of another image's row is found out."""


@pytest.fixture
def inputs():
    return random_images(IMAGES, 3, 2, 2, low=0.2, high=0.8)


@pytest.fixture
def labels(inputs):
    return MODEL(inputs).argmax(1)


@pytest.fixture
def start(inputs):
    return (inputs + 0.05 * torch.randn(inputs.shape, generator=seeded(3), dtype=torch.float64)).clamp(0, 1)


def weighted(delta, rows):
    values, slope = squared_l2(delta, rows)
    return WEIGHT[rows] * values, WEIGHT[rows].view(-1, 1, 1, 1) * slope


def literal(inputs, labels, start, *, steps, step_size, decay_step_size=False, free=None):
    """All iterates (steps, N, C, H, W), what each lacks to succeed, and its loss, both (steps, N)."""
    place = torch.atanh((2 * start - 1) * (1 - 1e-6)).requires_grad_()
    adam = torch.optim.Adam([place], lr=step_size)
    images, lacks, losses = [], [], []
    for step in range(steps):
        adam.param_groups[0]["lr"] = step_size * (1 - step / steps) if decay_step_size else step_size
        moved = (place.tanh() + 1) / 2
        image = moved if free is None else torch.where(free, moved, inputs)
        lack = -margin(MODEL(image), labels)
        loss = WEIGHT * (image - inputs).square().sum((1, 2, 3)) + C * lack.clamp_min(0)
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        for values, value in ((images, image), (lacks, lack), (losses, loss)):
            values.append(value.detach())
    return torch.stack(images), torch.stack(lacks), torch.stack(losses)


def ours(inputs, labels, start, model=MODEL, rows=None, **options):
    search = Search(model, inputs, labels, norm="l2", make_objective=one_draw_loss)
    rows = torch.arange(len(inputs)) if rows is None else rows
    return search, *descend(search, rows, start[rows], C[rows], weighted, **options)


@pytest.mark.parametrize("decay_step_size", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_adam_on_the_penalty_and_the_missing_margin(decay_step_size, masked, inputs, labels, start):
    """Its last iterate, which images succeeded on the way, and of each the nearest success."""
    free = (torch.rand(IMAGES, 1, 2, 2, generator=seeded(4)) < 0.7) if masked else None
    options = {"steps": 40, "step_size": 0.1, "decay_step_size": decay_step_size, "free": free}
    images, lacks, _ = literal(inputs, labels, start, **options)
    search, found, ends = ours(inputs, labels, start, **options)
    assert_close(ends, images[-1])
    success = lacks < 0
    assert torch.equal(found, success.any(0))
    assert 0 < found.sum() < IMAGES
    sizes = (images - inputs).flatten(2).norm(dim=2).masked_fill(~success, torch.inf)
    assert_close(search.norms, sizes.amin(0))
    nearest = images.gather(0, sizes.argmin(0).view(1, -1, 1, 1, 1).expand(1, *inputs.shape))[0]
    assert_close(search.images[found], nearest[found])
    assert torch.equal(search.images[~found], inputs[~found])
    if masked:
        fixed = ~free.expand_as(inputs)
        assert torch.equal(ends[fixed], inputs[fixed])


def test_some_rows_alone_fare_as_all_together(inputs, labels, start):
    options = {"steps": 20, "step_size": 0.1}
    _, found, ends = ours(inputs, labels, start, **options)
    rows = torch.tensor([4, 1])
    search, some_found, some_ends = ours(inputs, labels, start, rows=rows, **options)
    assert torch.equal(some_found, found[rows])
    assert_close(some_ends, ends[rows])
    assert not search.found[[0, 2, 3, 5]].any()


def test_until_found_an_image_stops_at_its_first_success(inputs, labels, start):
    """The others go on with moments and step number of their own; no pass is spent on those that stopped."""
    passes = []

    def counted(images):
        passes.append(len(images))
        return MODEL(images)

    options = {"steps": 40, "step_size": 0.1}
    images, lacks, _ = literal(inputs, labels, start, **options)
    _, found, ends = ours(inputs, labels, start, counted, stop_at_success=True, **options)
    success = lacks < 0
    last = torch.where(success.any(0), success.int().argmax(0), 39)
    assert_close(ends, images[last, torch.arange(IMAGES)])
    assert torch.equal(found, success.any(0))
    assert len(set(last.tolist())) > 2
    assert sum(passes) == (last + 1).sum()


def test_an_image_is_given_up_where_its_loss_no_longer_falls(inputs, labels, start):
    """Looked at every tenth of 150 steps: at each look the lowest loss so far, against that of the look before."""
    options = {"steps": 150, "step_size": 0.05}
    images, _, losses = literal(inputs, labels, start, **options)
    last = torch.full((IMAGES,), 149)
    for row in range(IMAGES):
        lowest = losses[:, row].cummin(0).values
        for look in range(30, 151, 15):
            if lowest[look - 1] >= (1 - 1e-4) * lowest[look - 16]:
                last[row] = look - 1
                break
    assert len(set(last.tolist())) > 2
    _, _, ends = ours(inputs, labels, start, abort_early=True, **options)
    assert_close(ends, images[last, torch.arange(IMAGES)])


def test_a_pixel_at_an_end_of_the_box_can_leave_it():
    """tanh's place of 0 and of 1 is infinite: it is a finite one nearby, from which a gradient leads away."""
    inputs = random_images(IMAGES, 3, 2, 2).round()
    _, _, ends = ours(inputs, MODEL(inputs).argmax(1), inputs, steps=200, step_size=0.5)
    assert ends.isfinite().all()
    assert ends.min() >= 0
    assert ends.max() <= 1
    assert (ends - inputs).abs().max() > 0.3


def test_squares_are_the_squared_norm_and_its_gradient(inputs):
    delta = (inputs - 0.5).requires_grad_()
    values, slope = squared_l2(delta.detach(), torch.arange(IMAGES))
    expected = torch.stack([image.norm() ** 2 for image in delta])
    assert_close(values, expected.detach())
    assert_close(slope, torch.autograd.grad(expected.sum(), delta)[0])
