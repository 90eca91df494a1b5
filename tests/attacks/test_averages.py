"""Means of probabilities and of logits against their formulas, and who may call them."""

import pytest
import torch
from torch.testing import assert_close

from smoothed.attacks.averages import AVERAGES, named_average
from smoothed.errors import ArgumentError
from smoothed.rng.seeds import seeded


def test_each_kind_is_its_formula():
    logits = torch.randn(5, 3, 4, generator=seeded(0), dtype=torch.float64)
    expected = {
        "probabilities": (logits.exp() / logits.exp().sum(2, keepdim=True)).mean(0).log(),
        "logits": logits.mean(0),
    }
    assert set(AVERAGES) == set(expected)
    for name, mean in expected.items():
        average = named_average(name)
        assert_close(average.logits(torch.stack([average.scores(each) for each in logits]).mean(0)), mean)


def test_no_probability_is_too_small_for_a_logarithm():
    average = named_average("probabilities")
    logits = torch.tensor([[0.0, -1000.0]], requires_grad=True)
    back = average.logits(average.scores(logits))
    assert back.isfinite().all()
    assert torch.autograd.grad(back.sum(), logits)[0].isfinite().all()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_scores_are_float32_at_least(dtype, expected, images):
    scores = named_average("probabilities").model_scores(lambda inputs: inputs.flatten(1).to(dtype), images)
    assert scores.dtype == expected


def test_errors(images, network):
    with pytest.raises(ArgumentError, match="average: expected one of probabilities, logits, got 'losses'"):
        named_average("losses")
    with pytest.raises(ArgumentError, match=r"model: expected float logits of shape \(16, K\)"):
        named_average("logits").model_scores(lambda inputs: inputs, images)
    with pytest.raises(ArgumentError, match="inputs: expected the number of channels that the model accepts"):
        named_average("logits").model_scores(network, images[:, :1])
