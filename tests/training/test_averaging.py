"""The weight average against its recursion."""

import torch
from torch import nn

from smoothed.training.averaging import average_weights


def test_the_average_follows_its_recursion():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = average_weights(model, 0.6)
    expected = None
    for step in range(12):
        with torch.no_grad():
            model[0].weight.fill_(float(step))
        model(torch.randn(4, 2, generator=torch.Generator().manual_seed(step)))
        average.update_parameters(model)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = float(step) if expected is None else decay * expected + (1 - decay) * step
        assert torch.allclose(average.module[0].weight, torch.tensor(expected))
        assert average.module[1].num_batches_tracked == step + 1
    assert not torch.equal(average.module[1].running_mean, model[1].running_mean)
