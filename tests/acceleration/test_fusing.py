"""A fused network against the plain one under the same keyed noise, and its own noise against its law."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from fusible import INJECTIONS, NETWORKS, assert_same, learned, pulled_back
from quick import first
from smoothed.acceleration.fusing import fuse
from smoothed.injection import CNI, PNI, inject, inject_preset, noise_from, noiseless
from smoothed.models import build
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh
from smoothed.utils.modes import batch_statistics

DRAWS = 8000
# An entry of an empirical covariance, over sqrt(C_ii C_jj), has a deviation of at most sqrt(2 / DRAWS) = 0.016.
TOLERANCE = 0.08


@pytest.fixture(autouse=True)
def seeded_globally():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def batch(images):
    return images[:4].double()


@pytest.fixture
def alone(monkeypatch):
    """How many layers and batch norms of torch run by themselves while a function runs."""

    def count(function):
        calls = []
        with monkeypatch.context() as patch:
            for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, _BatchNorm):
                name = "forward" if kind in {nn.Linear, _BatchNorm} else "_conv_forward"
                own = getattr(kind, name)
                patch.setattr(kind, name, lambda self, *args, own=own: calls.append(self) or own(self, *args))
            function()
        return len(calls)

    return count


class Counting(Fresh):
    """A source that says how often it was asked."""

    def __init__(self, seed=0):
        super().__init__(seeded(seed))
        self.sizes = []

    def shared(self, layer, shape, like):
        self.sizes.append(shape)
        return super().shared(layer, shape, like)


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("name", first(1, NETWORKS))
class TestSameFunction:
    def fused(self, name, injection):
        model = NETWORKS[name]()
        INJECTIONS[injection](model)
        return fuse(learned(model))

    def test_in_eval_mode(self, name, injection, batch):
        assert_same(self.fused(name, injection), batch)

    def test_in_train_mode_and_under_batch_statistics(self, name, injection, batch):
        fused = self.fused(name, injection)
        twin = copy.deepcopy(fused.model).train()
        fused.train()
        assert_same(fused, batch, plain=twin)
        for (key, got), expected in zip(fused.model.state_dict().items(), twin.state_dict().values(), strict=True):
            assert_close(got, expected, msg=key)  # running statistics have moved alike
        with batch_statistics(fused):
            assert_same(fused, batch)
        assert_same(fused.eval(), batch)

    def test_with_some_noise_off(self, name, injection, batch):
        fused = self.fused(name, injection)
        first, *_ = [*fused.model.children(), None]
        with noiseless(first):
            assert_same(fused, batch)
        with noiseless(fused):
            results = pulled_back(fused, batch), pulled_back(fused.model, batch)
        for got, expected in zip(*results, strict=True):
            assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_resnet20_in_single_precision(generator):
    model = build("resnet20")
    inject_preset(model, "cni-w")
    fused = fuse(learned(model).float())
    assert_same(fused, torch.rand(2, 3, 32, 32, generator=generator), rtol=1e-3, atol=3e-4)


LAYERS = {
    "conv2d": ((2, 6, 16), nn.Conv2d(2, 4, 3)),
    "strided": ((2, 6, 16), nn.Conv2d(2, 4, 3, stride=(2, 1), padding=(0, 2), bias=False)),
    "grouped": ((4, 6, 8), nn.Conv2d(4, 8, (3, 1), groups=2, dilation=2)),
    "depthwise": ((4, 6, 8), nn.Conv2d(4, 4, 3, groups=4, padding="same", dilation=(1, 2))),
    "conv1d": ((3, 64), nn.Conv1d(3, 4, 5, stride=3, padding=2, dilation=2)),
    "grouped1d": ((4, 48), nn.Conv1d(4, 8, 3, groups=4, bias=False)),
    "conv3d": ((2, 4, 6, 4), nn.Conv3d(2, 4, (2, 3, 1), stride=(1, 2, 1), padding=(1, 0, 1))),
    "grouped3d": ((2, 4, 6, 4), nn.Conv3d(2, 4, 2, groups=2, dilation=(1, 2, 1), bias=False)),
    "linear": ((192,), nn.Linear(192, 4)),
    "sequences": ((12, 16), nn.Linear(16, 12, bias=False)),
}


@pytest.mark.parametrize("law", [None, PNI("channel"), CNI(rank=3)], ids=["none", "pni", "cni"])
@pytest.mark.parametrize("norm", [False, True], ids=["bare", "norm"])
@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer(name, norm, law, batch, alone):
    shape, layer = LAYERS[name]
    layer, kind = copy.deepcopy(layer), type(layer)
    norms = {nn.Conv2d: nn.BatchNorm2d, nn.Conv1d: nn.BatchNorm1d, nn.Conv3d: nn.BatchNorm3d, nn.Linear: nn.BatchNorm1d}
    # Sequences are normalised by position, of which there are as many as features.
    after = norms[kind](layer.weight.shape[0]) if norm else nn.Identity()
    model = nn.Sequential(nn.Unflatten(1, shape), layer, after, nn.Flatten())
    if law is not None:
        inject(model, weights=law)
    fused = fuse(nn.Sequential(nn.Flatten(), learned(model)).double())
    assert_same(fused, batch)
    assert alone(lambda: fused(batch)) == (norm and kind not in {nn.Conv2d, nn.Conv3d})


def test_all_noise_is_one_request_and_norms_are_folded(batch, alone):
    model = NETWORKS["resnet"]()
    inject_preset(model, "cni-w")
    fused, source = fuse(learned(model)), Counting()
    with noise_from(fused, source):
        assert alone(lambda: fused(batch)) == 0
        weights = sum(p.numel() for name, p in model.named_parameters() if name.endswith("original"))
        assert source.sizes == [(weights + 9 * 5,)]  # seven convolutions and two shortcuts of rank 5
        assert alone(lambda: fused.train()(batch)) == 9  # batch norms
        assert len(source.sizes) == 2


class TestLaw:
    """Two convolutions side by side, whose effective weights are read off a pass over the basis."""

    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(2, 2, (1, 2), bias=False)
            self.norm = nn.BatchNorm2d(2)
            self.second = nn.Conv2d(2, 2, (1, 2))
            self.third = nn.Conv2d(2, 1, (1, 2))

        def forward(self, inputs):
            return torch.cat([self.norm(self.first(inputs)), self.second(inputs), self.third(inputs)], 1).flatten(1)

    @pytest.fixture
    def fused(self):
        model = self.Beside()
        inject(model, weights=CNI(rank=3), layers=["first"])
        inject(model, weights=CNI(rank=1), layers=["second"])
        inject(model, weights=PNI("element"), layers=["third"])
        learned(model)
        with torch.no_grad():
            model.first.parametrizations.weight[0].factor.mul_(20).add_(torch.randn(8, 3, generator=seeded(1)) * 0.2)
            model.second.parametrizations.weight[0].factor.mul_(20)
        return fuse(model)

    def weights(self, fused):
        """All effective weights of one pass, (20,), by (output channel, input channel, position)."""
        basis = torch.cat([torch.eye(4), torch.zeros(1, 4)]).view(5, 2, 1, 2).double()
        with torch.no_grad():
            outputs = fused(basis)
        return (outputs[:4] - outputs[4:]).T.flatten()

    def law(self, model):
        """Mean (20,) and covariance (20, 20), by the layers' definitions."""
        gain = (model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()).repeat_interleave(4)
        means, blocks = [], []
        for layer, factors in ((model.first, gain), (model.second, torch.ones(8)), (model.third, torch.ones(4))):
            noise, original = layer.parametrizations.weight[0], layer.parametrizations.weight.original
            spread = ((original - original.mean()) ** 2).sum().div(original.numel() - 1).sqrt()
            if layer is model.third:
                covariance = torch.diag((noise.alpha * spread).flatten() ** 2)
            else:
                covariance = torch.diag((spread * noise.variance).abs().flatten()) + noise.factor @ noise.factor.T
            means.append(original.flatten() * factors)
            blocks.append(covariance * factors.outer(factors))
        return torch.cat(means).detach(), torch.block_diag(*blocks).detach()

    @pytest.mark.slow
    def test_mean_and_covariance_under_one_shared_source(self, fused):
        source = Counting()
        with noise_from(fused, source):
            draws = torch.stack([self.weights(fused) for _ in range(DRAWS)])
        assert source.sizes == [(8 + 8 + 4 + 2 * 3,)] * DRAWS
        mean, covariance = self.law(fused.model)
        deviation = covariance.diagonal().sqrt()
        assert ((draws.mean(0) - mean) / deviation).abs().max() < 5 / DRAWS**0.5
        correlation = covariance / deviation.outer(deviation)
        assert (torch.cov(draws.T) / deviation.outer(deviation) - correlation).abs().max() < TOLERANCE
        # The test would tell a lost second term, a lost gain, or a term shared between layers.
        assert (correlation - torch.eye(20)).abs()[:8, :8].max() > 4 * TOLERANCE
        assert (correlation - torch.eye(20)).abs()[8:16, 8:16].max() > 4 * TOLERANCE
        assert (fused.model.norm.weight.abs().log()).abs().max() > 0.2

    def test_draws_are_fresh_and_follow_the_seed(self, fused):
        passes = []
        for _ in range(2):
            with noise_from(fused, Fresh(seeded(3))):
                passes += [self.weights(fused), self.weights(fused)]
        assert torch.equal(passes[0], passes[2])
        assert torch.equal(passes[1], passes[3])
        assert (passes[0] - passes[1]).abs().min() > 0
        assert (self.weights(fused) - self.weights(fused)).abs().min() > 0  # each layer has a source of its own here
