"""FGSM and PGD against cleverhans', EPGD against torchattacks' EOTPGD: the same start and steps give the same images.

EOTPGD adds up the gradients of the cross-entropies of single draws: that is `expected_loss`. With one draw,
`expected_logits` is the same. The draws come from a seeded generator, so that both meet the same ones.
"""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from smoothed.attacks import expected_logits, expected_loss, fgsm, one_draw_loss, pgd
from smoothed.injection import PNI, inject, noise_from
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh

torchattacks = pytest.importorskip("torchattacks")
fast_gradient = pytest.importorskip("cleverhans.torch.attacks.fast_gradient_method").fast_gradient_method
projected = pytest.importorskip("cleverhans.torch.attacks.projected_gradient_descent").projected_gradient_descent

EPS = {"linf": 8 / 255, "l2": 0.4}
ORDER = {"linf": np.inf, "l2": 2}
STEPS = 7
norms = pytest.mark.parametrize("norm", ["linf", "l2"])
directions = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])


class TestCleverhans:
    """Clipped to [0, 1], from the inputs and from a start inside the ball."""

    @directions
    def test_fgsm(self, targeted, network, images, labels):
        options = {"clip_min": 0.0, "clip_max": 1.0, "y": labels, "targeted": targeted}
        expected = fast_gradient(network, images, EPS["linf"], np.inf, **options)
        attacked = fgsm(network, images, labels, eps=EPS["linf"], targeted=targeted)
        assert_close(attacked, expected, rtol=0, atol=1e-6)
        assert ((attacked - images).abs() > 0.9 * EPS["linf"]).float().mean() > 0.9

    @norms
    @directions
    def test_one_step(self, norm, targeted, network, images, labels):
        options = {"clip_min": 0.0, "clip_max": 1.0, "y": labels, "targeted": targeted}
        expected = fast_gradient(network, images, EPS[norm], ORDER[norm], **options)
        options = {"step_size": EPS[norm], "steps": 1, "random_start": False, "targeted": targeted}
        assert_close(pgd(network, images, labels, eps=EPS[norm], norm=norm, **options), expected, rtol=0, atol=1e-6)

    @norms
    @directions
    @pytest.mark.parametrize("random_start", [False, True])
    def test_pgd(self, norm, targeted, random_start, network, images, labels, monkeypatch):
        """Theirs starts uniformly in the cube, in l2 too, brought back to the ball: here with our numbers.

        In l2 they clip to [0, 1] before the projection as well, so that the images compared stay inside.
        """
        eps, images = EPS[norm], images if norm == "linf" else 0.4 + 0.2 * images
        noise = torch.empty_like(images).uniform_(-eps, eps, generator=seeded(5))
        monkeypatch.setattr(torch.Tensor, "uniform_", lambda tensor, low, high: tensor.copy_(noise))  # noqa: ARG005
        expected = projected(
            network,
            images,
            eps,
            eps / 4,
            STEPS,
            ORDER[norm],
            clip_min=0.0,
            clip_max=1.0,
            y=labels,
            targeted=targeted,
            rand_init=random_start,
            sanity_checks=False,
        )
        start = {"start": images + noise} if random_start else {"random_start": False}
        attacked = pgd(network, images, labels, eps=eps, steps=STEPS, norm=norm, targeted=targeted, **start)
        assert_close(attacked, expected.detach(), rtol=0, atol=1e-6)
        assert (attacked - images).abs().max() > eps / 20


@directions
class TestEOTPGD:
    @pytest.fixture
    def noisy(self, network):
        inject(network, weights=PNI(initial=1.0))
        return network

    def theirs(self, noisy, images, labels, eot_samples, *, targeted):
        attack = torchattacks.EOTPGD(
            noisy, eps=EPS["linf"], alpha=EPS["linf"] / 4, steps=STEPS, eot_iter=eot_samples, random_start=False
        )
        if targeted:
            attack.set_mode_targeted_by_label(quiet=True)
        with noise_from(noisy, Fresh(seeded(9))):
            return attack(images, labels)

    def ours(self, noisy, images, labels, objective, *, targeted):
        options = {"eps": EPS["linf"], "steps": STEPS, "random_start": False, "targeted": targeted}
        with noise_from(noisy, Fresh(seeded(9))):
            return pgd(noisy, images, labels, objective=objective, **options)

    def test_averages_the_loss(self, targeted, noisy, images, labels):
        expected = self.theirs(noisy, images, labels, 6, targeted=targeted)
        attacked = self.ours(noisy, images, labels, expected_loss(6), targeted=targeted)
        assert_close(attacked, expected, rtol=0, atol=1e-6)
        # Averages of logits, or fewer draws, are other attacks.
        for other in (expected_logits(6), expected_loss(5), one_draw_loss()):
            attacked = self.ours(noisy, images, labels, other, targeted=targeted)
            assert (attacked - expected).abs().max() > EPS["linf"] / 4

    def test_one_draw_is_the_same_under_every_expectation(self, targeted, noisy, images, labels):
        expected = self.theirs(noisy, images, labels, 1, targeted=targeted)
        for objective in (one_draw_loss(), expected_loss(1), expected_logits(1)):
            attacked = self.ours(noisy, images, labels, objective, targeted=targeted)
            assert_close(attacked, expected, rtol=0, atol=1e-6)
