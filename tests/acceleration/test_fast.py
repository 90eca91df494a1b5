"""The cheapest form of a network against the network itself, under the same keyed noise."""

import copy
import pickle
import shutil

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import smoothed
from fusible import NETWORKS, learned
from smoothed.acceleration.fast import Fast, SlowerWarning
from smoothed.data.sample import load_sample
from smoothed.errors import ArgumentError
from smoothed.injection import CNI, inject, noise_from
from smoothed.rng.sources import Keyed


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = learned(NETWORKS["resnet"]()).float()
        inject(model, weights=CNI(rank=2))
        yield model.eval().requires_grad_(False)


@pytest.fixture
def batch(generator):
    return torch.rand(4, 3, 32, 32, generator=generator)


class Recorder(nn.Module):
    """A traceable network's first layer, which tells what reached it."""

    def forward(self, inputs):
        self.seen = inputs.is_contiguous(memory_format=torch.channels_last), inputs.is_inference()
        return inputs.mean((2, 3))


class Untraceable(nn.Module):
    """A network whose way depends on its input: it can't be fused."""

    def __init__(self):
        super().__init__()
        self.inner, self.kept = Recorder(), None

    def forward(self, inputs):
        self.kept = self.inner(inputs) if inputs.sum() > 0 else inputs.mean((2, 3))
        return self.kept


def keyed(model, inputs, seed=3):
    with noise_from(model, Keyed(seed)):
        return model(inputs)


@pytest.mark.slow
def test_logits_are_those_of_the_network(model, batch):
    fast = Fast(model)
    assert fast.reason is None
    with torch.no_grad():
        got, expected = keyed(fast, batch), keyed(model, batch)
        other = keyed(fast, batch, seed=4)
    assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert (other - expected).abs().max() > 0.01  # the noise is there


@pytest.mark.slow
def test_gradients_reach_the_inputs(model, batch):
    def gradient(network):
        inputs = batch.clone().requires_grad_()
        return torch.autograd.grad(keyed(network, inputs).square().sum(), inputs)[0]

    assert_close(gradient(Fast(model)), gradient(model), rtol=1e-3, atol=1e-4)


def test_what_a_pass_without_gradients_leaves_serves_one_with_them(model, batch):
    fast = Fast(model)
    with torch.no_grad():
        assert fast(batch).is_inference()
    inputs = batch.clone().requires_grad_()
    assert torch.autograd.grad(fast(inputs).sum(), inputs)[0].abs().max() > 0


def test_it_follows_the_weights(model, batch):
    fast = Fast(model)
    with torch.no_grad():
        before = keyed(fast, batch)
        for parameter in model.parameters():
            parameter.mul_(1.2)
        after = keyed(fast, batch)
        assert (after - before).abs().max() > 0.01
        assert_close(after, keyed(model, batch), rtol=1e-4, atol=1e-4)


def test_one_that_cannot_be_fused_runs_as_it_is(batch):
    network = Untraceable()
    fast = Fast(network)
    assert fast.reason is not None
    with torch.no_grad():
        assert_close(fast(batch), network(batch))
    assert network.inner.seen == (False, False)  # the last call was the plain one
    with torch.no_grad():
        fast(batch)
    assert network.inner.seen == (True, False)
    assert not network.kept.is_inference()  # what it keeps may be used in autograd later
    assert not network.kept.requires_grad
    with torch.inference_mode():
        assert fast(batch).is_inference()


def test_one_that_cannot_be_fused_makes_no_graph_that_nobody_asks_for(batch):
    class Learned(Untraceable):
        def __init__(self):
            super().__init__()
            self.strength = nn.Parameter(torch.ones(()))

        def forward(self, inputs):
            return super().forward(inputs) * self.strength

    fast = Fast(Learned())
    with torch.no_grad():
        assert not fast(batch).requires_grad
    assert fast(batch).requires_grad


def test_it_pickles_as_its_network_does(batch):
    network = NETWORKS["resnet"]().eval().requires_grad_(False)
    fast = Fast(network, "bf16")
    fresh = pickle.dumps(fast)
    with torch.no_grad():
        before = fast(batch)
        packed = pickle.dumps(fast)
        assert len(packed) < 1.02 * len(fresh)  # the folded weights that a pass keeps are not in it
        assert torch.equal(pickle.loads(packed)(batch), before)


def test_bf16_gives_float32_logits_close_to_the_network_s(model, batch):
    fast = Fast(model, "bf16")
    with torch.no_grad():
        got, expected = keyed(fast, batch), keyed(model, batch)
    assert got.dtype == torch.float32
    error = (got - expected).abs().max()
    assert 1e-5 < error < 0.05 * expected.abs().max()


def test_precision_is_named():
    assert Fast(NETWORKS["biases"](), "auto").precision in {"float32", "bf16"}
    with pytest.raises(ArgumentError, match="precision"):
        Fast(NETWORKS["biases"](), "fp8")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_one_gives_the_same(batch, monkeypatch):
    compiled, really = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda what, **options: compiled.append(what) or really(what, **options))
    model = NETWORKS["biases"]().eval().requires_grad_(False)
    small = batch[:, :, :8, :8]
    fast = Fast(model, compile=True)
    with torch.no_grad():
        assert_close(fast(small), model(small), rtol=1e-5, atol=1e-5)
        assert_close(fast(small[:3]), model(small[:3]), rtol=1e-5, atol=1e-5)
    assert compiled  # and no `SlowerWarning`, which would be an error


@pytest.mark.parametrize("fusible", [True, False])
def test_one_that_cannot_be_compiled_runs_without_and_says_so(model, batch, monkeypatch, fusible):
    def refuse(*_, **options):
        del options
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", refuse)
    network = model if fusible else Untraceable()
    fast = Fast(network, compile=True)
    with torch.no_grad():
        with pytest.warns(SlowerWarning, match="not compiled: .*(no compiler|can be fused)"):
            got = keyed(fast, batch)
        assert_close(got, keyed(network, batch), rtol=1e-4, atol=1e-4)
        assert_close(keyed(fast, batch), got)  # and no warning again


@pytest.mark.slow
def test_the_votes_of_the_bundled_network_are_the_same():
    network = smoothed.load("resnet20-cni-w").eval()
    images = load_sample().first(6).images / 255
    plain, fast, rounded = (
        smoothed.Smoothed(model, smoothed.Gaussian(0.06), seed=2, chunk_size=24).tally(images, [8])["soft"][8].shares
        for model in (network, Fast(network), Fast(network, "bf16"))
    )
    assert_close(fast, plain, rtol=0, atol=1e-4)
    assert 0 < (rounded - plain).abs().max() < 0.1


def test_it_copies_and_moves_as_any_network(model, batch):
    fast = copy.deepcopy(Fast(model))
    with torch.no_grad():
        assert_close(keyed(fast, batch), keyed(model, batch), rtol=1e-4, atol=1e-4)


class TestStacked:
    """Draws that share a pass, where that is quicker."""

    @pytest.mark.slow
    def test_logits_are_those_of_each_draw(self, model, batch, monkeypatch):
        monkeypatch.setattr("smoothed.acceleration.fast.seconds_in_turn", lambda _: [2.0, 1.0])
        inputs = torch.stack([batch[:2], batch[2:], batch[1:3]])
        sources, errors = [Keyed(9, draw) for draw in range(3)], {"float32": 1e-4, "bf16": 1e-2}
        for precision in ("float32", "bf16"):
            fast = Fast(model, precision)
            assert fast.draws_per_pass(inputs[0], 256) == 16
            assert fast.draws_per_pass(inputs[0], 13) == 6
            together = fast.stacked(inputs, sources)
            assert together.dtype == torch.float32
            with torch.no_grad():
                for draw, source, of_draw in zip(inputs, sources, together, strict=True):
                    with noise_from(fast, source):  # in the same precision, layer by layer
                        assert_close(of_draw, fast(draw), rtol=0, atol=errors[precision] * float(of_draw.abs().max()))

    @pytest.mark.parametrize("precision", ["float32", "bf16"])
    def test_without_noise_all_draws_are_one(self, batch, precision):
        fast = Fast(smoothed.build("resnet20").eval(), precision)
        together = fast.stacked(batch.expand(2, *batch.shape), [Keyed(9, draw) for draw in range(2)])
        with torch.no_grad():
            alone = fast(batch)
        for of_draw in together:
            assert_close(of_draw, alone, rtol=0, atol=1e-2 * float(alone.abs().max()))

    @pytest.mark.slow
    @pytest.mark.parametrize("quicker", [True, False])
    def test_it_is_tried_once_for_each_size(self, model, batch, monkeypatch, quicker):
        tried = []

        def seconds(actions):
            apart, together = (action() for action in actions)
            assert_close(
                together, apart, rtol=0, atol=1e-4 * float(apart.abs().max())
            )  # the trial is of the same draws
            tried.append(len(together[0]))
            return [2.0, 1.0] if quicker else [1.0, 2.0]

        monkeypatch.setattr("smoothed.acceleration.fast.seconds_in_turn", seconds)
        fast = Fast(model)
        assert [fast.draws_per_pass(batch[:size], 256) for size in (1, 2, 1, 2)] == [16 if quicker else 1] * 4
        assert tried == [1, 2]
        assert fast.draws_per_pass(batch.repeat(3, 1, 1, 1), 256) == 1  # a full pass needs no company
        assert tried == [1, 2]

    def test_what_torch_can_not_stack_is_done_one_by_one(self, model, batch, monkeypatch):
        def refuse(*_):
            raise RuntimeError("no batching rule")

        fast = Fast(model)
        monkeypatch.setattr(type(fast.network), "stacked", refuse)
        assert fast.draws_per_pass(batch[:1], 256) == 1

    def test_one_that_cannot_be_fused_does_not_stack(self, batch):
        fast = Fast(Untraceable().eval())
        assert fast.draws_per_pass(batch[:1], 256) == 1
        with pytest.raises(ArgumentError, match="draws can share a pass"):
            fast.stacked(batch[:1].expand(2, 1, 3, 32, 32), [Keyed(0), Keyed(1)])

    def test_weights_of_inference_mode_are_left_alone(self, batch):
        with torch.inference_mode():
            network = NETWORKS["biases"]().eval()
        fast = Fast(network)
        assert "outside of torch.inference_mode" in fast.reason
        with torch.no_grad():
            assert_close(fast(batch[:, :, :8, :8]), network(batch[:, :, :8, :8]))

    def test_so_many_weights_are_not_held_twice(self, batch, monkeypatch, model):
        monkeypatch.setattr("smoothed.acceleration.fast.seconds_in_turn", lambda _: [2.0, 1.0])
        fast = Fast(model)
        monkeypatch.setattr("smoothed.acceleration.fast._MAX_WEIGHTS", 5 * fast.network.size + 1)
        assert fast.draws_per_pass(batch[:1], 256) == 5
        monkeypatch.setattr("smoothed.acceleration.fast._MAX_WEIGHTS", 2 * fast.network.size - 1)
        assert fast.draws_per_pass(batch[:2], 256) == 1
