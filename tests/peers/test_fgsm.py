"""FGSM against torchattacks'."""

import torchattacks
from torch.testing import assert_close

from smoothed.attacks import fgsm

EPS = 8 / 255


def test_is_torchattacks(network, images, labels):
    peer = torchattacks.FGSM(network, eps=EPS)
    assert_close(fgsm(network, images, labels, eps=EPS), peer(images, labels), rtol=0, atol=1e-6)


def test_is_torchattacks_targeted(network, images, labels):
    peer = torchattacks.FGSM(network, eps=EPS)
    peer.set_mode_targeted_by_label(quiet=True)
    attacked = fgsm(network, images, labels, eps=EPS, targeted=True)
    assert_close(attacked, peer(images, labels), rtol=0, atol=1e-6)
