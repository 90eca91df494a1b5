"""Square beside pyautoattack's, from as many queries: the bundled mean network in L-inf, and a linear model in L2."""

import math

import pytest
import torch

import smoothed
from smoothed.acceleration.fusing import fuse
from smoothed.attacks import Queries, margin
from smoothed.attacks.query_based.square import square
from smoothed.data.sample import load_sample
from smoothed.rng.seeds import seeded

pytest.importorskip("pyautoattack")
EPS, IMAGES, QUERIES = 8 / 255, 100, 200


@torch.no_grad()
def test_as_few_images_withstand_it():
    """No more than theirs and one in 100 (two in 200): both are random searches."""
    from pyautoattack.square import SquareAttack

    sample, network = load_sample(), smoothed.load("resnet20-cni-w")
    inputs, labels = sample.images[:IMAGES] / 255, sample.labels[:IMAGES]
    model = fuse(network.eval())
    with smoothed.noiseless(network):
        right = model(inputs).argmax(1) == labels
        inputs, labels = inputs[right], labels[right]
        peer = SquareAttack(model, norm="Linf", n_queries=QUERIES, eps=EPS, seed=0, device="cpu")
        theirs = peer.perturb(inputs, labels)
        queries = Queries(model, max_queries=QUERIES)
        ours = square(queries, inputs, labels, eps=EPS, generator=seeded(0))
        withstand = [int((model(attacked).argmax(1) == labels).sum()) for attacked in (ours, theirs)]
    assert queries.spent.max() == QUERIES
    assert (ours - inputs).abs().max() <= EPS + 1e-6
    assert withstand[0] <= withstand[1] + 1
    assert withstand[0] < len(inputs)


def test_l2_gains_as_much_on_a_linear_model():
    """Labels that no query can change, so that all queries are spent: the mean gain of 32 images, within 5 %."""
    from pyautoattack.square import SquareAttack

    inputs, labels = torch.rand(32, 3, 16, 16, generator=seeded(0)), torch.zeros(32, dtype=torch.int64)
    slope = torch.randn(3, 16, 16, generator=seeded(1)) + torch.linspace(-1, 1, 16)

    def model(images):
        value = (images * slope).sum((1, 2, 3)) - 1000
        return torch.stack([torch.zeros_like(value), value], 1)

    peer = SquareAttack(model, norm="L2", n_queries=500, eps=1.0, seed=0, device="cpu")
    peer.init_hyperparam(inputs)
    theirs = peer.attack_single_run(inputs, labels)[1]
    ours = square(model, inputs, labels, eps=1.0, norm="l2", max_queries=500, confidence=math.inf, generator=seeded(0))
    gains = [
        float((margin(model(attacked), labels) - margin(model(inputs), labels)).mean()) for attacked in (ours, theirs)
    ]
    assert gains[0] > 0.95 * gains[1] > 0
