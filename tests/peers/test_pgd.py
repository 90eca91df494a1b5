"""PGD against torchattacks and foolbox: the same start, steps and step size give the same images."""

import warnings

import pytest
import torch
from torch.testing import assert_close

from smoothed.attacks import pgd
from smoothed.rng.seeds import seeded

torchattacks = pytest.importorskip("torchattacks")
STEPS = 7
norms = pytest.mark.parametrize("norm", ["linf", "l2"])
directions = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])


def radius(norm):
    """A budget of about the same strength in either norm, for 192 pixels."""
    return 8 / 255 if norm == "linf" else 0.4


@pytest.fixture(scope="module")
def foolbox():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # foolbox imports names that scipy deprecates
        return pytest.importorskip("foolbox")


@directions
class TestPeers:
    """The same start, steps and step size give the same images, in torchattacks and in foolbox."""

    def start(self, images, norm):
        noise = torch.randn(images.shape, generator=seeded(8))
        length = noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        scaled = noise.clamp(-1, 1) if norm == "linf" else 0.8 * noise / length
        return (images + radius(norm) * scaled).clamp(0, 1)

    @norms
    @pytest.mark.parametrize("random_start", [False, True])
    def test_torchattacks(self, norm, targeted, random_start, network, images, labels):
        eps = radius(norm)
        method = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
        peer = method(network, eps=eps, alpha=eps / 4, steps=STEPS, random_start=random_start)
        begun = method(network, eps=eps, alpha=0.0, steps=1, random_start=random_start)
        if targeted:
            peer.set_mode_targeted_by_label(quiet=True)
            begun.set_mode_targeted_by_label(quiet=True)
        with torch.random.fork_rng():
            torch.manual_seed(6)
            expected = peer(images, labels)
            torch.manual_seed(6)
            start = begun(images, labels)  # their start: one step of length 0
        assert torch.equal(start, images) != random_start
        attacked = pgd(network, images, labels, eps=eps, steps=STEPS, norm=norm, targeted=targeted, start=start)
        assert_close(attacked, expected, rtol=0, atol=1e-6 if norm == "linf" else 1e-5)
        if not random_start:
            still = pgd(network, images, labels, eps=eps, steps=STEPS, norm=norm, targeted=targeted, random_start=False)
            assert torch.equal(still, attacked)

    @norms
    @pytest.mark.parametrize("random_start", [False, True])
    def test_foolbox(self, norm, targeted, random_start, network, images, labels, foolbox, monkeypatch):
        eps = radius(norm)
        method = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
        peer = method(abs_stepsize=eps / 4, steps=STEPS, random_start=random_start)
        start = self.start(images, norm) if random_start else images
        monkeypatch.setattr(peer, "get_random_start", lambda inputs, epsilon: type(inputs)(start))  # noqa: ARG005
        wanted = foolbox.criteria.TargetedMisclassification if targeted else foolbox.criteria.Misclassification
        bounded = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
        expected = peer.run(bounded, images, wanted(labels), epsilon=eps)
        attacked = pgd(network, images, labels, eps=eps, steps=STEPS, norm=norm, targeted=targeted, start=start)
        assert (attacked - start).abs().max() > eps / 20
        assert_close(attacked, expected, rtol=0, atol=1e-6 if norm == "linf" else 1e-5)
