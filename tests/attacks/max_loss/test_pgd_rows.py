"""What PGD does to one image never depends on the images beside it: radii and starts of one's own."""

import inspect

import pytest
import torch
from torch.testing import assert_close

from refusing import check_refusals
from smoothed.attacks import pgd
from smoothed.rng.rows import RowGenerator
from smoothed.rng.seeds import seeded

norms = pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 0.4)])


@pytest.fixture
def batch(network, images, labels):
    """In float64, in which no gradient's sign depends on the batch."""
    return network.double(), images.double(), labels


@norms
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("step_size", [None, "each", 0.01])
def test_one_radius_an_image(norm, eps, targeted, step_size, batch):
    network, images, labels = batch
    radii = torch.linspace(0, 2 * eps, len(images))  # of another dtype than the images
    sizes = radii / 3 if step_size == "each" else step_size
    options = {"steps": 5, "norm": norm, "targeted": targeted}
    attacked = pgd(network, images, labels, eps=radii, step_size=sizes, generator=RowGenerator(2), **options)
    for row in range(len(images)):
        one = slice(row, row + 1)
        alone = pgd(
            network,
            images[one],
            labels[one],
            eps=radii[row].item(),
            step_size=sizes[row].item() if step_size == "each" else step_size,
            generator=RowGenerator(2, row),
            **options,
        )
        assert_close(attacked[one], alone, rtol=0, atol=1e-9)
    assert torch.equal(attacked[0], images[0])
    delta = (attacked - images).flatten(1)
    distance = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert (distance <= radii.double() + 1e-7).all()
    assert distance[-1] > 1.5 * eps


@norms
def test_equal_radii_are_one_radius(norm, eps, batch):
    network, images, labels = batch
    ends = [
        pgd(network, images, labels, eps=each, norm=norm, restarts=2, generator=seeded(1))
        for each in (eps, torch.full((16,), eps, dtype=torch.float64))
    ]
    assert_close(*ends, rtol=0, atol=1e-12)


@norms
@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("cut", [1, 7, 15])
def test_starts_follow_images_wherever_the_batch_is_cut(norm, eps, restarts, cut, batch):
    network, images, labels = batch
    options = {"eps": eps, "norm": norm, "steps": 2, "restarts": restarts}
    before = torch.get_rng_state()
    whole = pgd(network, images, labels, generator=RowGenerator(9), **options)
    parts = [
        pgd(network, images[rows], labels[rows], generator=RowGenerator(9, rows.start), **options)
        for rows in (slice(0, cut), slice(cut, 16))
    ]
    assert_close(torch.cat(parts), whole, rtol=0, atol=1e-9)
    assert torch.equal(torch.get_rng_state(), before)
    assert (pgd(network, images, labels, generator=RowGenerator(8), **options) - whole).abs().max() > 0.1 * eps / 14


@norms
def test_starts_by_rows_fill_the_ball(norm, eps):
    """Without steps: uniform in the ball. In l2, radius^d is uniform, d = 12; 4000 starts, five deviations."""
    inputs, labels = torch.full((4000, 3, 2, 2), 0.5), torch.zeros(4000, dtype=torch.int64)
    starts = pgd(
        lambda images: images.flatten(1)[:, :2],
        inputs,
        labels,
        eps=eps,
        step_size=0.0,
        steps=1,
        norm=norm,
        generator=RowGenerator(0),
    )
    delta = (starts - inputs).flatten(1) / eps
    share = delta.abs() if norm == "linf" else delta.norm(dim=1) ** 12
    assert_close(share.mean().item(), 0.5, rtol=0, atol=5 * (1 / 12 / share.numel()) ** 0.5)
    assert_close(share.square().mean().item(), 1 / 3, rtol=0, atol=5 * (4 / 45 / share.numel()) ** 0.5)
    assert delta.mean(0).abs().max() < 5 * delta.std() / 4000**0.5
    # Neighbours are independent, across the blocks that rows are drawn in too.
    assert abs((delta[1:] * delta[:-1]).mean() / delta.var()) < 5 / delta[1:].numel() ** 0.5


def test_errors(network, images, labels):
    def call(**options):
        inspect.unwrap(pgd)(network, images, labels, **options)

    check_refusals(
        call,
        [
            (
                {"eps": torch.full((15,), 0.1)},
                r"eps: expected a number or a tensor of shape \(16,\), got shape \(15,\)",
            ),
            ({"eps": torch.full((16, 1, 1, 1), 0.1)}, r"eps: expected .*, got shape \(16, 1, 1, 1\)"),
            ({"eps": torch.tensor(0.1)}, r"eps: expected .*, got shape \(\)"),
            ({"eps": 0.1, "step_size": torch.ones(3)}, r"step_size: expected .* of shape \(16,\), got shape \(3,\)"),
            ({"eps": torch.linspace(-0.5, 1, 16)}, r"eps: expected finite numbers of at least 0, got -0\.5"),
            ({"eps": torch.tensor([0.1] * 15 + [float("nan")])}, "eps: expected finite numbers of at least 0, got nan"),
            (
                {"eps": 0.1, "step_size": torch.full((16,), float("inf"))},
                "step_size: expected finite numbers .* got inf",
            ),
        ],
    )
