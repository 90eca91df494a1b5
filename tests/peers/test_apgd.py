"""APGD against pyautoattack's: the robust accuracy of the bundled mean network, with the same number of steps.

CE and DLR are compared on the first 200 images of the sample, 20 steps, and the targeted DLR on the first 100, 10 steps
towards each of three classes: sizes that one core does in a minute. Starts are each library's own, with fixed seeds.
"""

from functools import partial

import pytest
import torch

import smoothed
from smoothed.attacks import LOSSES, one_draw_loss
from smoothed.attacks.max_loss.apgd import apgd, apgd_targeted
from smoothed.data.imageset import to_float
from smoothed.data.sample import load_sample
from smoothed.injection import noiseless
from smoothed.rng.seeds import seeded

peer = pytest.importorskip("pyautoattack.autopgd_base")
EPS = 8 / 255


@pytest.fixture(scope="module")
def network():
    network = smoothed.load("resnet20-cni-w")
    with noiseless(network):
        yield network


def images_of(count):
    sample = load_sample().first(count)
    return to_float(sample.images), sample.labels


@torch.no_grad()
def right(network, images, labels):
    return (network(images).argmax(1) == labels).sum().item()


@pytest.mark.parametrize("name", ["ce", "dlr"])
def test_one_loss(name, network):
    inputs, labels = images_of(200)
    theirs = peer.APGDAttack(network, n_iter=20, norm="Linf", eps=EPS, loss=name, device="cpu", seed=0)
    expected = right(network, theirs.perturb(inputs, labels), labels)
    attack = partial(apgd, objective=one_draw_loss(LOSSES[name]))
    attacked = attack(network, inputs, labels, eps=EPS, steps=20, early_stop=True, generator=seeded(0))
    assert (attacked - inputs).abs().max() <= EPS + 1e-6
    assert right(network, attacked, labels) <= expected + 1
    assert expected < right(network, inputs, labels) - 40


def test_targeted(network):
    inputs, labels = images_of(100)
    options = {"n_iter": 10, "n_target_classes": 3, "norm": "Linf", "eps": EPS, "device": "cpu", "seed": 0}
    expected = right(network, peer.APGDAttack_targeted(network, **options).perturb(inputs, labels), labels)
    attacked = apgd_targeted(
        network, inputs, labels, eps=EPS, steps=10, num_targets=3, early_stop=True, generator=seeded(0)
    )
    assert (attacked - inputs).abs().max() <= EPS + 1e-6
    assert right(network, attacked, labels) <= expected
    assert expected < right(network, inputs, labels) - 20
