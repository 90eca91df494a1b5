"""The Bayesian attack on linear models, whose best tile has a closed form, against random search, and its queries."""

import inspect

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from refusing import check_refusals
from smoothed.attacks import Queries, margin
from smoothed.attacks.query_based.bayes import bayesian
from smoothed.errors import ArgumentError
from smoothed.injection import PNI, inject, noise_from
from smoothed.rng.rows import RowGenerator
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh

EPS, SIDE = 0.1, 2
ALL = float("inf")
"""A confidence that no margin has: all queries are spent."""
directions = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])


@pytest.fixture
def linear():
    """Two classes of images (1, 8, 8)."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


@pytest.fixture
def batch(generator):
    """Eight images (1, 8, 8), far enough from 0 and 1."""
    return 0.2 + 0.6 * torch.rand(8, 1, 8, 8, generator=generator), torch.tensor([0, 1] * 4)


def gain(model, inputs, attacked, labels, *, targeted):
    """How much the margin grew in the attack's direction, (N,)."""
    with torch.no_grad():
        grown = margin(model(attacked), labels) - margin(model(inputs), labels)
    return -grown if targeted else grown


class TestLinear:
    @directions
    def test_it_reaches_the_best_tile(self, targeted, linear, batch):
        """Of squares of one value: eps times the sum of the slope's absolute sums over squares."""
        inputs, labels = batch
        attacked = bayesian(
            Queries(linear), inputs, labels, eps=EPS, tile_side=SIDE, max_queries=30, initial_queries=5,
            targeted=targeted, confidence=ALL, generator=seeded(0),
        )  # fmt: skip
        slope = (linear[1].weight[1] - linear[1].weight[0]).detach().view(1, 1, 8, 8)
        best = EPS * 16 * nn.functional.avg_pool2d(slope, 4).abs().sum()
        grown = gain(linear, inputs, attacked, labels, targeted=targeted)
        assert_close(grown, best.expand(8), rtol=0.02, atol=0)
        assert (grown <= best + 1e-5).all()

    @pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
    @directions
    def test_it_beats_random_search(self, targeted, upsampling, linear, batch):
        """Of corners of the same cube of tiles, by the same number of queries, on the mean over images."""
        inputs, labels, side, queries = *batch, 4, 40
        attacked = bayesian(
            linear, inputs, labels, eps=EPS, tile_side=side, max_queries=queries, upsampling=upsampling,
            targeted=targeted, confidence=ALL, generator=seeded(0),
        )  # fmt: skip
        generator, tries = seeded(1), []
        for _ in range(queries):
            tiles = torch.randn(8, 1, side, side, generator=generator).sign()
            delta = EPS * nn.functional.interpolate(tiles, (8, 8), mode=upsampling)
            tries.append(gain(linear, inputs, (inputs + delta).clamp(0, 1), labels, targeted=targeted))
        grown = gain(linear, inputs, attacked, labels, targeted=targeted)
        assert grown.mean() > 1.15 * torch.stack(tries).amax(0).mean()


class TestBudget:
    @pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
    @pytest.mark.parametrize("eps", [0.0, 0.03, 2.0])
    def test_never_leaves_the_ball_or_the_range(self, eps, upsampling, network, images, labels):
        """Every query, too; among images some of whose pixels are at their ends."""
        inputs = images.mul(1.4).sub(0.2).clamp(0, 1)
        asked = []

        def watched(queried):
            asked.append(queried)
            return network(queried)

        options = {
            "eps": eps,
            "tile_side": 3,
            "max_queries": 8,
            "initial_queries": 3,
            "upsampling": upsampling,
            "confidence": ALL,
        }
        attacked = bayesian(watched, inputs, labels, generator=seeded(0), **options)
        assert attacked.shape == inputs.shape
        assert attacked.dtype == inputs.dtype
        for each in (attacked, *asked):
            assert (each - inputs).abs().max() <= eps + 1e-6
            assert each.min() >= 0
            assert each.max() <= 1
        if not eps:
            assert torch.equal(attacked, inputs)

    @pytest.mark.parametrize(("own", "bound", "spent"), [(7, None, 7), (50, 9, 9), (5, 9, 5), (1, None, 1), (9, 2, 2)])
    def test_queries_are_exact(self, own, bound, spent, network, images, labels):
        queries = Queries(network, max_queries=bound)
        options = {"eps": 0.01, "tile_side": 2, "max_queries": own, "initial_queries": 3, "confidence": ALL}
        bayesian(queries, images, labels, generator=seeded(0), **options)
        assert queries.spent.tolist() == [spent] * 16

    def test_averaged_answers_are_queries(self, network, images, labels):
        queries = Queries(network)
        bayesian(queries, images, labels, eps=0.01, tile_side=2, max_queries=11, eot_samples=3, confidence=ALL)
        assert queries.spent.tolist() == [9] * 16

    def test_success_ends_an_image(self, linear, batch):
        """What is misclassified costs one query and stays as it is; the others stop when fooled."""
        inputs = batch[0]
        labels = linear(inputs).argmax(1)
        labels[:3] = 1 - labels[:3]
        queries = Queries(linear)
        attacked = bayesian(queries, inputs, labels, eps=0.3, tile_side=2, generator=seeded(0))
        assert torch.equal(attacked[:3], inputs[:3])
        assert queries.spent[:3].tolist() == [1] * 3
        assert (queries.spent[3:] > 1).all()
        assert (queries.spent[3:] < 60).all()
        assert (linear(attacked).argmax(1) != labels).all()


class TestManners:
    def test_the_best_answer_is_returned(self, network, images, labels):
        """Without a success to end on: of all that was asked, that of the highest margin."""
        asked = []

        def watched(queried):
            asked.append(queried)
            return network(queried)

        options = {"eps": 0.05, "tile_side": 4, "max_queries": 12, "initial_queries": 4, "confidence": ALL}
        attacked = bayesian(watched, images, labels, generator=seeded(0), **options)
        values = torch.stack([margin(network(each), labels) for each in asked])
        assert_close(margin(network(attacked), labels), values.amax(0))
        assert len(values.argmax(0).unique()) > 2

    @pytest.mark.parametrize("sees", ["logits", "shares"])
    def test_logits_and_shares_serve_alike(self, sees, network, images, labels):
        """The margin of logarithms of shares is that of logits, to rounding."""
        labels = network(images).argmax(1)
        options = {"eps": 0.1, "tile_side": 4, "max_queries": 30, "confidence": ALL}
        attacked = bayesian(Queries(network, sees=sees), images, labels, generator=seeded(0), **options)
        assert (gain(network, images, attacked, labels, targeted=False) > 0.02).all()

    def test_tiles_follow_images(self, linear, batch):
        inputs, labels = batch
        options = {"eps": EPS, "tile_side": 2, "max_queries": 12, "initial_queries": 4, "confidence": ALL}
        whole = bayesian(linear, inputs, labels, generator=RowGenerator(4), **options)
        parts = [
            bayesian(linear, inputs[cut], labels[cut], generator=RowGenerator(4, cut.start), **options)
            for cut in (slice(0, 3), slice(3, 8))
        ]
        # Bounds that are almost equal may be ranked either way in a batch of another size.
        changed = ((torch.cat(parts) - whole).abs() > 1e-5).flatten(1).any(1)
        assert changed.double().mean() < 0.3

    def test_the_generator_decides(self, network, images, labels):
        before = torch.get_rng_state()
        options = {"eps": 0.02, "tile_side": 2, "max_queries": 6, "initial_queries": 3, "confidence": ALL}
        first, second, other = (
            bayesian(network, images, labels, generator=seeded(seed), **options) for seed in (1, 1, 2)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_model_is_untouched(self, network, images, labels):
        inject(network.train(), weights=PNI())
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with noise_from(network, Fresh(seeded(0))):
            attacked = bayesian(
                network, images.requires_grad_(), labels, eps=0.05, tile_side=2, max_queries=6, initial_queries=3
            )
        assert not attacked.requires_grad
        assert images.grad is None
        assert all(module.training for module in network.modules())
        assert all(parameter.grad is None for parameter in network.parameters())
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_other_precisions(self, dtype, linear, batch):
        model = linear.double()
        attacked = bayesian(
            lambda inputs: model(inputs.double()),
            batch[0].to(dtype),
            batch[1],
            eps=EPS,
            tile_side=2,
            max_queries=8,
            initial_queries=3,
        )
        assert attacked.dtype == dtype
        assert (attacked - batch[0].to(dtype)).abs().max() <= EPS + 1e-3

    def test_a_model_that_answers_the_same_to_all(self, images, labels):
        """No value is better than another: no NaN, and the inputs are as good as anything."""
        attacked = bayesian(
            lambda inputs: nn.functional.one_hot(labels[: len(inputs)], 4).float(), images, labels, eps=0.1,
            tile_side=2, max_queries=8, initial_queries=3, generator=seeded(0),
        )  # fmt: skip
        assert torch.equal(attacked, images)


def test_errors(network):
    def call(**change):
        arguments = {
            "model": network,
            "inputs": torch.full((2, 3, 8, 8), 0.5),
            "labels": torch.tensor([0, 1]),
            "eps": 0.1,
            "tile_side": 2,
            "max_queries": 4,
            **change,
        }
        inspect.unwrap(bayesian)(**arguments)

    check_refusals(
        call,
        [
            ({"inputs": torch.full((2, 3, 8, 8), 2.0)}, "inputs: expected images in"),
            ({"labels": torch.tensor([0])}, r"labels: expected int64 classes of shape \(2,\)"),
            ({"labels": torch.tensor([0, 9])}, r"labels: expected classes in 0\.\.3"),
            ({"eps": -0.1}, r"eps: expected a finite number of at least 0, got -0\.1"),
            ({"max_queries": 0}, "max_queries: expected an integer of at least 1, got 0"),
            ({"max_queries": 2, "eot_samples": 3}, "max_queries: expected at least eot_samples, 3, got 2"),
            ({"tile_side": 0}, "tile_side: expected an integer of at least 1, got 0"),
            ({"tile_side": 9}, "tile_side: expected at most 8, the smaller side of the images, got 9"),
            ({"initial_queries": 0}, "initial_queries: expected an integer of at least 1, got 0"),
            ({"candidates": 0}, "candidates: expected an integer of at least 1, got 0"),
            ({"upsampling": "cubic"}, "upsampling: expected one of nearest, bilinear, got 'cubic'"),
            ({"model": lambda inputs: inputs}, r"model: expected float logits of shape \(2, K\)"),
        ],
    )


def test_labels_alone_are_refused(network, images, labels):
    with pytest.raises(
        ArgumentError, match=r"sees: expected logits or shares, since bayesian compares scores, got labels"
    ):
        bayesian(Queries(network, sees="labels"), images, labels, eps=0.1)
