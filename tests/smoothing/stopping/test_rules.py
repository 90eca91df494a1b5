"""Rules by name, and the rules in the engine."""

import pytest
import torch

from smoothed import Gaussian, Smoothed
from smoothed.errors import ArgumentError
from smoothed.smoothing.stopping import Budget, Confident, Exact, TrueMode, resolve_stopping_rule


def test_resolve():
    assert resolve_stopping_rule("exact") == Exact()
    assert resolve_stopping_rule(None) is None
    rule = Confident(0.01)
    assert resolve_stopping_rule(rule) is rule
    for wrong in ("sometimes", 3, Confident):
        with pytest.raises(ArgumentError, match="stop: expected exact, a rule of smoothed"):
            resolve_stopping_rule(wrong)


def linear(inputs):
    margin = inputs.flatten(1) @ torch.linspace(-1, 1, inputs[0].numel())
    return torch.stack([torch.zeros_like(margin), margin, -margin], 1)


@pytest.mark.slow
@pytest.mark.parametrize("chunk_size", [5, 64, 1000])
@pytest.mark.parametrize(
    "rule", [Exact(), Confident(0.01), Confident(0.01, "each"), TrueMode(0.05), Budget(20)], ids=str
)
def test_rules_in_the_engine(images, rule, chunk_size):
    """An image takes the draws that its rule asks for, whatever the passes hold, and the tally says how many."""

    def tally(stop):
        smoothed = Smoothed(linear, Gaussian(0.5), chunk_size=chunk_size)
        at, generator = (30, 90), torch.Generator().manual_seed(3)
        return smoothed.tally(images, at, votes=["prediction", "soft"], stop=stop, generator=generator)

    stopped, full = tally(rule), tally(None)
    for total in (30, 90):
        drawn = stopped["prediction"][total].num_samples
        assert torch.equal(stopped["prediction"][total].scores.sum(1), drawn.float())
        assert drawn.max() <= total
        assert drawn.float().mean() < total
        if isinstance(rule, Exact):
            assert torch.equal(stopped["soft"][total].classes(), full["soft"][total].classes())
            assert torch.equal(stopped["prediction"][total].classes(), full["prediction"][total].classes())
        if isinstance(rule, Budget):
            assert drawn.float().mean() <= 20
