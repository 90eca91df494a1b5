"""The norms and the success of C&W L2 and DDN beside foolbox's, on the mean network of the bundled model.

50 images, the same numbers of steps and attempts, the same first c and radius.
"""

import warnings

import pytest
import torch

import smoothed
from smoothed.attacks.min_norm.carlini_wagner_l2 import carlini_wagner_l2
from smoothed.attacks.min_norm.ddn import ddn
from smoothed.attacks.min_norm.minimum import norms
from smoothed.data.sample import load_sample
from smoothed.injection import noiseless

LARGER = 1.03


@pytest.fixture(scope="module")
def foolbox():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # foolbox imports names that scipy deprecates
        return pytest.importorskip("foolbox")


@pytest.fixture(scope="module")
def network():
    """The bundled network without its noise."""
    network = smoothed.load("resnet20-cni-w").eval().requires_grad_(False)
    with noiseless(network):
        yield network


@pytest.fixture(scope="module")
def batch():
    sample = load_sample().first(50)
    return sample.images.float() / 255, sample.labels.long()


def median_and_success(network, attacked, inputs, labels, norm):
    """The median norm, failures counted as infinite, and the share of successes."""
    with torch.no_grad():
        success = network(attacked).argmax(1) != labels
    sizes = norms(attacked - inputs, norm).masked_fill(~success, torch.inf)
    return sizes.median().item(), success.float().mean().item()


def compare(network, inputs, labels, norm, ours, theirs):
    (size, success), (their_size, their_success) = (
        median_and_success(network, attacked, inputs, labels, norm) for attacked in (ours, theirs)
    )
    print(f"median {size:.4f} against {their_size:.4f}, success {success:.2f} against {their_success:.2f}")
    assert their_success > 0.9
    assert success >= their_success
    assert size <= LARGER * their_size


def test_ddn(network, batch, foolbox):
    """20 steps each."""
    bounded = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    theirs = foolbox.attacks.DDNAttack(steps=20).run(bounded, batch[0], foolbox.criteria.Misclassification(batch[1]))
    compare(network, *batch, "l2", ddn(network, *batch, steps=20), theirs)


def test_carlini_wagner_l2(network, batch, foolbox):
    """Three attempts of 25 steps each, from c = 1."""
    bounded = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    peer = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=3, steps=25, stepsize=0.02, initial_const=1.0)
    theirs = peer.run(bounded, batch[0], foolbox.criteria.Misclassification(batch[1]))
    ours = carlini_wagner_l2(network, *batch, search_steps=3, steps=25, step_size=0.02, initial_c=1.0)
    compare(network, *batch, "l2", ours, theirs)
