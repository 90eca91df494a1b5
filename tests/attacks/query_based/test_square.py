"""Square against closed forms on a linear model, a gridded ReLU network, and the paper's formulas written out."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from refusing import check_refusals
from smoothed.attacks import Queries, cross_entropy, margin
from smoothed.attacks.query_based.square import MOVES, bump, halvings, square
from smoothed.rng.seeds import seeded

NUM_GEOMETRY_UNIFORMS = 5 + 3


class TestOptimum:
    @pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
    @pytest.mark.parametrize("loss", [margin, cross_entropy])
    def test_linear_linf(self, targeted, loss):
        """Two classes: the best margin has every pixel at its own end, and success is where that is above 0."""
        generator = seeded(0)
        weight = torch.randn(48, generator=generator)
        inputs = torch.rand(12, 3, 4, 4, generator=generator)
        bounds = (inputs - 0.1).clamp(0, 1), (inputs + 0.1).clamp(0, 1)
        optimum = torch.where(weight.view(3, 4, 4) > 0, bounds[1], bounds[0]).flatten(1) @ weight
        clean = inputs.flatten(1) @ weight
        # Offsets that put the optimum 15 % of its gain beyond, or short of, the boundary.
        flips = torch.arange(12) % 2 == 0
        offset = -optimum + torch.where(flips, 0.15, -0.15) * (optimum - clean)
        by_row = {round(float(value), 4): at for at, value in enumerate(inputs[:, 0, 0, 0])}
        assert len(by_row) == 12
        queries = Queries(self.shifted(weight, inputs, offset), max_queries=400)
        labels = torch.full((12,), int(targeted))
        attacked = square(queries, inputs, labels, eps=0.1, loss=loss, targeted=targeted, generator=generator)
        value = attacked.flatten(1) @ weight + offset
        assert torch.equal(value > 0, flips)
        assert torch.equal(queries.spent < 400, flips)

    def shifted(self, weight, inputs, offset):
        """Two logits whose difference is w x + b, with the b of the nearest image."""

        def model(images):
            nearest = torch.cdist(images.flatten(1), inputs.flatten(1)).argmin(1)
            value = images.flatten(1) @ weight + offset[nearest]
            return torch.stack([torch.zeros_like(value), value], 1)

        return model

    def test_linear_l2(self, generator):
        """eps along the slope is best. Bumps follow a smooth slope but roughly: a third of the best gain."""
        slope = torch.linspace(-1, 1, 8).view(1, 8, 1).expand(3, 8, 8) * torch.tensor([1.0, -1.0, 0.5]).view(3, 1, 1)
        inputs = 0.3 + 0.4 * torch.rand(8, 3, 8, 8, generator=generator)

        def model(images):
            value = (images * slope).sum((1, 2, 3))
            return torch.stack([torch.zeros_like(value), value], 1)

        labels = torch.zeros(8, dtype=torch.int64)
        options = {"eps": 0.5, "norm": "l2", "max_queries": 300, "confidence": math.inf}
        attacked = square(model, inputs, labels, generator=generator, **options)
        gain = margin(model(attacked), labels) - margin(model(inputs), labels)
        best = 0.5 * slope.norm()
        assert (gain < best).all()
        assert (gain > best / 3).all()

    @pytest.mark.parametrize("norm", ["linf", "l2"])
    def test_relu_network_on_a_grid(self, norm):
        """Four pixels: the best margin of 13^4 points of the ball, untargeted, within a tenth of its gain."""
        with torch.random.fork_rng():
            torch.manual_seed(3)
            network = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).requires_grad_(False)
        inputs = 0.3 + 0.4 * torch.rand(6, 4, 1, 1, generator=seeded(0))
        labels = network(inputs).argmax(1)
        axis = torch.linspace(-0.2, 0.2, 13)
        grid = torch.cartesian_prod(axis, axis, axis, axis)
        grid = grid if norm == "linf" else grid[grid.norm(dim=1) <= 0.2]
        best = torch.stack(
            [
                margin(network(grid + image.flatten()), label.repeat(len(grid))).max()
                for image, label in zip(inputs, labels, strict=True)
            ]
        )
        clean = margin(network(inputs), labels)
        options = {"eps": 0.2, "norm": norm, "max_queries": 200, "confidence": math.inf}
        attacked = square(network, inputs, labels, generator=seeded(0), **options)
        assert (margin(network(attacked), labels) - clean > 0.9 * (best - clean)).all()


class TestMoves:
    def test_halvings_are_the_papers(self):
        """Of 10,000: after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000; of others, in proportion."""
        ends = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
        assert [halvings(end, 10_000) for end in ends] == list(range(9))
        assert [halvings(end + 1, 10_000) for end in ends] == list(range(1, 10))
        assert halvings(0, 10_000) == 0
        assert [halvings(tried, 100) for tried in (0, 1, 3, 11, 81)] == [0, 2, 3, 5, 9]

    def test_bump_is_equation_2(self):
        for height, width in ((5, 2), (5, 3), (7, 7), (4, 4), (3, 1)):
            half = height // 2
            expected = torch.zeros(height, width, dtype=torch.float64)
            for row in range(1, height + 1):
                for column in range(1, width + 1):
                    rings = half - max(abs(row - half - 1), abs(column - width // 2 - 1))
                    expected[row - 1, column - 1] = sum(1 / (half + 1 - k) ** 2 for k in range(rings + 1))
            assert_close(bump(height, width, like=expected), expected)

    def test_start_linf_is_stripes_of_all_signs(self):
        delta = MOVES["linf"].start(torch.zeros(200, 3, 4, 4), 0.1, seeded(0))
        assert torch.equal(delta, delta[:, :, :1].expand_as(delta))
        assert torch.equal(delta.abs(), torch.full_like(delta, 0.1))
        assert delta[:, :, 0].mean(0).abs().max() < 5 * 0.1 / 200**0.5

    def test_step_linf_is_a_square_of_one_sign_a_channel(self):
        """Its side is sqrt(p h w), it may lie anywhere, and each sign is as likely."""
        start = torch.zeros(2000, 3, 6, 6)
        moved = MOVES["linf"].step(start, 9 / 36, 0.1, torch.rand(2000, NUM_GEOMETRY_UNIFORMS, generator=seeded(0)))
        changed = (moved != 0).all(1)
        assert torch.equal(changed, (moved != 0).any(1))
        assert (changed.any(2).sum(1) == 3).all()
        assert (changed.any(1).sum(1) == 3).all()
        corners = changed.flatten(1).float().argmax(1).bincount(minlength=36).view(6, 6)
        assert corners[4:].sum() + corners[:, 4:].sum() == 0
        assert (corners[:4, :4] - 125).abs().max() < 5 * (2000 / 16 * 15 / 16) ** 0.5
        signs = moved.sum((2, 3)).sign()
        assert signs.mean(0).abs().max() < 5 / 2000**0.5
        assert_close(moved.abs().amax((1, 2, 3)), torch.full((2000,), 0.1))

    def test_start_l2_is_on_the_sphere(self):
        for shape in ((4, 3, 8, 8), (4, 1, 28, 28), (4, 3, 3, 3), (4, 4, 1, 1)):
            delta = MOVES["l2"].start(torch.zeros(shape), 0.7, seeded(0))
            assert_close(delta.flatten(1).norm(dim=1), torch.full((4,), 0.7))

    def test_step_l2_is_algorithm_3(self):
        """Written out for one image at a time, from the same lots."""
        generator = seeded(0)
        delta = 0.05 * torch.randn(20, 3, 9, 9, generator=generator, dtype=torch.float64)
        lots = torch.rand(20, NUM_GEOMETRY_UNIFORMS, generator=generator, dtype=torch.float64)
        moved = MOVES["l2"].step(delta.clone(), 20 / 81, 1.0, lots)
        side = 5  # sqrt(20) is 4.5, and the side is odd
        for old, new, lot in zip(delta, moved, lots, strict=True):
            r1, s1, r2, s2 = (int(value * (9 - side + 1)) for value in lot[:4])
            hill, hollow = bump(side, side // 2, like=delta), bump(side, side - side // 2, like=delta)
            pair = torch.cat([hill, -hollow], 1)
            pair = (pair if lot[4] < 0.5 else pair.T) / pair.norm()
            unused = max(0.0, 1 - float(old.square().sum()))
            expected = old.clone()
            for channel in range(3):
                both = torch.zeros(9, 9, dtype=torch.bool)
                both[r1 : r1 + side, s1 : s1 + side] = both[r2 : r2 + side, s2 : s2 + side] = True
                available = math.sqrt(float(old[channel][both].square().sum()) + unused / 3)
                window = old[channel, r1 : r1 + side, s1 : s1 + side]
                sign = -1 if lot[5 + channel] < 0.5 else 1
                shape = sign * pair + window / window.norm()
                expected[channel, r2 : r2 + side, s2 : s2 + side] = 0
                expected[channel, r1 : r1 + side, s1 : s1 + side] = shape / shape.norm() * available
            assert_close(new, expected)
            assert expected.norm() <= 1 + 1e-9


class TestRandom:
    """A linear margin with normal noise, of which the test knows the mean."""

    def mean_margin(self, weight, images):
        return images.flatten(1) @ weight

    @pytest.fixture
    def task(self):
        weight = torch.randn(48, generator=seeded(1))
        return weight, torch.rand(256, 3, 4, 4, generator=seeded(2)), torch.zeros(256, dtype=torch.int64)

    def gain(self, task, **options):
        weight, inputs, labels = task
        noise = seeded(3)

        def model(images):
            value = self.mean_margin(weight, images) + 0.2 * torch.randn(len(images), generator=noise)
            return torch.stack([torch.zeros_like(value), value], 1)

        options = {"eps": 0.05, "confidence": math.inf, "max_queries": 200, **options}
        attacked = square(model, inputs, labels, generator=seeded(4), **options)
        return self.mean_margin(weight, attacked) - self.mean_margin(weight, inputs)

    def test_remeasuring_now_and_then_withstands_lucky_draws(self, task):
        """At the same number of queries true margins gain more: by four standard errors, image by image."""
        more = self.gain(task, remeasure_every=40) - self.gain(task)
        assert more.mean() > 4 * more.std() / len(more) ** 0.5

    def test_averaging_helps_at_the_same_number_of_candidates(self, task):
        assert self.gain(task, eot_samples=8, max_queries=200 * 8).mean() > 1.3 * self.gain(task).mean()


def test_restarts_share_the_queries_and_keep_the_best(network, images):
    labels = network(images).argmax(1)
    queries = Queries(network, max_queries=32)
    options = {"eps": 0.03, "confidence": math.inf}
    attacked = square(queries, images, labels, restarts=3, generator=seeded(0), **options)
    assert (queries.spent == 32).all()
    seen = []
    square(
        lambda x: seen.append(network(x)) or seen[-1],
        images,
        labels,
        max_queries=32,
        restarts=3,
        generator=seeded(0),
        **options,
    )
    values = torch.stack([margin(answers, labels) for answers in seen])
    assert_close(margin(network(attacked), labels), values[1:].amax(0))


def test_errors(network, images, labels):
    def call(**change):
        square(network, images, labels, **{"eps": 0.1, **change})

    check_refusals(
        call,
        [
            ({"p_init": 1.5}, r"p_init: expected a number in \[0, 1\], got 1.5"),
            ({"restarts": 0}, "restarts: expected an integer of at least 1, got 0"),
            ({"remeasure_every": -1}, "remeasure_every: expected an integer of at least 0, got -1"),
        ],
    )
