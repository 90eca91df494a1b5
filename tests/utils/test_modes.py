"""Modes inside and after `eval_mode` and `batch_statistics`, on networks with mixed modes."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from smoothed.utils.modes import batch_statistics, eval_mode

contexts = pytest.mark.parametrize("context", [eval_mode, batch_statistics])


def modes(model):
    return [module.training for module in model.modules()]


def mix_modes(model):
    """Every other submodule in train mode, as after freezing some of them by hand."""
    for index, module in enumerate(model.modules()):
        module.training = index % 2 == 0
    return model


def test_a_model_in_eval_mode_is_not_told_so_again(network, monkeypatch):
    """It takes as long as a small pass."""
    told = []
    network.eval()
    monkeypatch.setattr(nn.Module, "train", lambda module, mode=True: told.append((module, mode)))
    with eval_mode(network):
        pass
    assert not told


def test_a_train_of_ones_own_is_always_called(network):
    """It may put what no one sees into another mode."""

    class Hiding(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = [network]

        def train(self, mode=True):
            self.hidden[0].train(mode)
            return super().train(mode)

    hiding = Hiding().eval()
    network.train()
    with eval_mode(hiding):
        assert not any(modes(network))


def test_modes_that_the_block_changed_come_back(network):
    network.eval()
    with eval_mode(network):
        network[1].train()
    assert not any(modes(network))


@contexts
class TestBoth:
    def test_mixed_modes_come_back(self, context, network, images):
        before = modes(mix_modes(network))
        with context(network):
            network(images)
            assert not network[3].training  # dropout
        assert modes(network) == before
        assert any(before)
        assert not all(before)

    def test_mixed_modes_come_back_after_an_error(self, context, network):
        before = modes(mix_modes(network))
        with pytest.raises(ZeroDivisionError), context(network):
            raise ZeroDivisionError
        assert modes(network) == before
        assert network[1].track_running_stats

    def test_nested(self, context, network):
        network.train()
        with context(network):
            inner = modes(network)
            with eval_mode(network):
                assert not any(modes(network))
            assert modes(network) == inner
        assert all(modes(network))

    def test_a_function_passes_through(self, context):
        with context(torch.sin):
            pass

    def test_parameters_and_buffers_stay(self, context, network, images):
        network.train()
        before = copy.deepcopy(network.state_dict())
        with context(network):
            network(images)
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name]), name

    def test_dropout_is_off(self, context, network, images):
        network.train()
        with context(network):
            assert torch.equal(network(images), network(images))


def test_evaluating_equals_eval(network, images):
    expected = copy.deepcopy(network).eval()(images)
    network.train()
    with eval_mode(network):
        assert torch.equal(network(images), expected)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
def test_batch_statistics_are_the_batchs(norm, generator):
    """Against (x - mean) / sqrt(var + eps) by hand, biased variance, running statistics far away from it."""
    extra = {nn.BatchNorm1d: 0, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}[norm]
    layer = norm(4).eval()
    layer.running_mean.fill_(50)
    layer.running_var.fill_(9)
    inputs = 3 + 2 * torch.randn(32, 4, *[3] * extra, generator=generator)
    around = tuple(axis for axis in range(inputs.ndim) if axis != 1)
    mean, variance = inputs.mean(around, keepdim=True), inputs.var(around, correction=0, keepdim=True)
    with batch_statistics(layer):
        assert_close(layer(inputs), (inputs - mean) / (variance + layer.eps).sqrt(), rtol=1e-4, atol=1e-5)
    assert_close(layer.running_mean, torch.full((4,), 50.0))
    assert_close(layer.running_var, torch.full((4,), 9.0))
    assert layer.num_batches_tracked == 0


def test_batch_statistics_keep_what_the_user_had_switched_off(images):
    network = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3))
    with batch_statistics(network):
        network(images)
    assert [norm.track_running_stats for norm in network] == [False, True]
    network.train()(images)
    assert network[1].num_batches_tracked == 1  # training goes on as ever
