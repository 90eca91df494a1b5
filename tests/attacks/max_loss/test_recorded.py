"""What is kept is what the model said, and the model is as before."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from smoothed.attacks import expected_logits, one_draw_loss
from smoothed.attacks.max_loss.recorded import Recorded
from smoothed.attacks.replay import snapshot
from smoothed.errors import ArgumentError
from smoothed.injection import PNI, inject, noise_from
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh


def test_one_call(network, images, labels):
    recorded = Recorded(network)
    value = one_draw_loss()(recorded, images, labels)
    assert torch.equal(value, one_draw_loss()(network, images, labels))
    assert torch.equal(recorded.logits, network(images))
    assert not recorded.logits.requires_grad


def test_the_mean_of_several(images, labels):
    answers = torch.randn(5, 16, 4, generator=seeded(0))
    calls = iter(answers)
    recorded = Recorded(lambda _: next(calls))
    expected_logits(5)(recorded, images, labels)
    assert_close(recorded.logits, answers.mean(0))


def test_draws_inside_are_still_found_for_a_replay(network, images):
    inject(network, weights=PNI(initial=1.0))
    with noise_from(network, Fresh(seeded(0))):
        recorded = Recorded(network)
        back = snapshot(recorded)
        first = recorded(images)
        back()
        assert torch.equal(recorded(images), first)
        assert not torch.equal(recorded(images), first)


def test_no_logits(images):
    with pytest.raises(ArgumentError, match=r"model: expected float logits of shape \(16, K\)"):
        Recorded(nn.Identity())(images)


def test_before_any_call(network):
    with pytest.raises(RuntimeError, match="the model has not been called"):
        _ = Recorded(network).logits
