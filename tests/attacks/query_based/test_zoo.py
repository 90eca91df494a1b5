"""ZOO's slopes against autograd, its Adam against torch's, and its attack against a linear optimum."""

import math

import pytest
import torch
from torch.testing import assert_close

from refusing import check_refusals
from smoothed.attacks import margin
from smoothed.attacks.query_based.zoo import CoordinateAdam, probes, zoo
from smoothed.rng.seeds import seeded


def test_differences_give_the_gradient(network, images):
    """Of the sum of tanh logits, in float64, within h^2; and one-sided, but for that, at 0 and 1."""
    network.double()
    inputs = images[:2].double().requires_grad_()
    with torch.no_grad():
        inputs[0, 0, 0, 0], inputs[1, 2, 3, 1] = 0, 1

    def value(batch):
        return network(batch).tanh().sum(1)

    (gradient,) = torch.autograd.grad(value(inputs).sum(), inputs)
    places = torch.stack([torch.tensor([0, 5, 77, 191]), torch.tensor([2 * 64 + 3 * 8 + 1, 1, 2, 3])])
    points, distance = probes(inputs.detach(), places, 1e-5)
    assert points.min() >= 0
    assert points.max() <= 1
    assert_close(distance, torch.tensor([[1.0, 2, 2, 2], [1, 2, 2, 2]], dtype=torch.float64) * 1e-5)
    forward, backward = value(points.flatten(0, 1)).view(2, 8).chunk(2, 1)
    assert_close((forward - backward) / distance, gradient.flatten(1).gather(1, places), rtol=1e-3, atol=1e-6)
    assert ((points - inputs.detach()[:, None]).flatten(2) != 0).sum(2).max() == 1


def test_adam_is_that_of_torch_on_each_coordinate(generator):
    """Each coordinate against an optimiser of its own, which steps only when the coordinate is visited."""
    adam, image = CoordinateAdam(torch.zeros(1, 5), 0.1), torch.zeros(5)
    peers = [torch.nn.Parameter(torch.zeros(1)) for _ in range(5)]
    optimizers = [torch.optim.Adam([peer], lr=0.1, maximize=True) for peer in peers]
    for _ in range(20):
        places = torch.randperm(5, generator=generator)[:2]
        slope = torch.randn(2, generator=generator)
        image[places] += adam.step(slope[None], places[None], torch.tensor([0]))[0]
        for place, value in zip(places.tolist(), slope, strict=True):
            peers[place].grad = value.view(1)
            optimizers[place].step()
    assert_close(image, torch.cat([peer.data for peer in peers]), rtol=1e-4, atol=1e-5)


class TestLinear:
    @pytest.fixture
    def weight(self):
        return torch.randn(48, generator=seeded(5))

    @pytest.fixture
    def model(self, weight):
        return lambda images: torch.stack([torch.zeros(len(images)), images.flatten(1) @ weight], 1)

    @pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
    @pytest.mark.parametrize("norm", ["linf", "l2"])
    def test_optimum(self, norm, targeted, weight, model, generator):
        """Every coordinate once is enough for `linf`; for `l2` it comes within 10 % of the best gain."""
        inputs = 0.3 + 0.4 * torch.rand(6, 3, 4, 4, generator=generator)
        labels, sign = torch.full((6,), int(targeted)), -1 if targeted else 1
        options = {"norm": norm, "targeted": targeted, "max_queries": 2 * 48 + 2, "confidence": math.inf}
        attacked = zoo(model, inputs, labels, eps=0.1, generator=generator, **options)
        gain = sign * (margin(model(attacked), labels) - margin(model(inputs), labels))
        best = 0.1 * (weight.abs().sum() if norm == "linf" else weight.norm())
        assert (gain <= best + 1e-4).all()
        assert (gain > (0.999 if norm == "linf" else 0.9) * best).all()

    def test_distance_weight_gives_the_originals_optimum(self, weight, model, generator):
        """The maximum of w d - |d|^2 / c, without any other bound, is d = c w / 2."""
        inputs = 0.4 + 0.2 * torch.rand(2, 3, 4, 4, generator=generator)
        options = {"step_size": 0.01, "max_queries": 20_000, "confidence": math.inf, "distance_weight": 20.0}
        attacked = zoo(model, inputs, torch.zeros(2).long(), eps=1.0, generator=generator, **options)
        expected = (weight / 40).view(3, 4, 4).expand_as(inputs)
        assert expected.abs().max() < 0.4
        assert_close(attacked - inputs, expected, rtol=0, atol=0.01)

    def test_coordinates_of_a_step(self, model, generator):
        """Steps of eight of the 48 coordinates: no more than eight change between two checks of the image."""
        seen = []
        inputs = torch.rand(1, 3, 4, 4, generator=generator)
        options = {"coordinates": 8, "max_queries": 52, "confidence": math.inf}
        zoo(lambda x: seen.append(x) or model(x), inputs, torch.tensor([0]), eps=0.1, generator=generator, **options)
        assert [len(images) for images in seen] == [1, 16, 1, 16, 1, 16, 1]
        for before, after in zip(seen[:-2:2], seen[2::2], strict=True):
            assert 0 < (before != after).sum() <= 8


def test_errors(network, images, labels):
    def call(**change):
        zoo(network, images, labels, **{"eps": 0.1, **change})

    check_refusals(
        call,
        [
            ({"coordinates": 0}, "coordinates: expected an integer of at least 1, got 0"),
            ({"difference": 0.0}, "difference: expected a distance above 0, got 0"),
            ({"step_size": -1.0}, "step_size: expected a finite number of at least 0, got -1"),
            ({"distance_weight": -1.0}, "distance_weight: expected a finite number of at least 0, got -1"),
        ],
    )
