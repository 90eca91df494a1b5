"""In which precision a fused network computes, how it treats the plain one, and draws that share a pass."""

import copy

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from fusible import INJECTIONS, NETWORKS, assert_same, learned
from smoothed.acceleration.fusing import fuse
from smoothed.errors import ArgumentError
from smoothed.injection import CNI, PNI, inject, inject_preset, noise_from, noise_layers, noiseless
from smoothed.rng.sources import Keyed


@pytest.fixture(autouse=True)
def seeded_globally():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def batch(images):
    return images[:4].double()


def set_by_hand(model):
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.mul_(1.1 + 0.01 * index)


@pytest.mark.parametrize("injection", ["none", "cni-w", "mixed"])
class TestPrecision:
    def test_autocast_is_as_near_as_the_plain_network(self, injection, images):
        """Both against float32; bfloat16 has eight bits, and the network four layers."""
        model = NETWORKS["biases"]()
        INJECTIONS[injection](model)
        fused, errors = fuse(learned(model).float()), []
        with noise_from(fused, Keyed(1)):
            exact = model(images).detach()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                for each in (model, fused):
                    outputs = each(images)
                    assert outputs.dtype == torch.bfloat16
                    errors.append((outputs.float() - exact).abs().max() / exact.abs().max())
        assert errors[0] > 1e-4
        assert errors[1] < max(2 * errors[0], 0.02)

    @pytest.mark.slow
    def test_autocast_passes_float64_by(self, injection, batch):
        model = NETWORKS["biases"]()
        INJECTIONS[injection](model)
        fused = fuse(learned(model))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_same(fused, batch)

    def test_a_weights_dtype_is_kept_where_norms_have_more(self, injection, batch):
        """Apart from the dtype, as precise as that dtype is."""
        model = NETWORKS["biases"]()
        INJECTIONS[injection](model)
        fused = fuse(learned(model))
        with noiseless(fused):
            exact = fused(batch)
            for module in model.modules():
                if not isinstance(module, _BatchNorm):
                    for parameter in module.parameters(recurse=False):
                        parameter.data = parameter.data.float()
            outputs = fused(batch.float())
        assert outputs.dtype == torch.float32
        assert_close(outputs.double(), exact, rtol=1e-3, atol=1e-3)


class TestManners:
    @pytest.fixture
    def fused(self):
        model = NETWORKS["resnet"]()
        inject_preset(model, "cni-w")
        return fuse(learned(model))

    def test_the_model_is_untouched_and_no_gradient_reaches_it(self, batch):
        model = NETWORKS["resnet"]()
        inject_preset(model, "cni-w")
        learned(model).layer2.train()
        attributes = {name: set(vars(module)) for name, module in model.named_modules()}
        modes = [module.training for module in model.modules()]
        state, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
        fused = fuse(model)
        assert torch.equal(torch.get_rng_state(), rng)
        fused.eval()(batch.requires_grad_()).sum().backward()
        assert batch.grad.abs().max() > 0
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(parameter.requires_grad for parameter in model.parameters())
        for module, training in zip(model.modules(), modes, strict=True):
            module.training = training
        assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
        assert list(model.state_dict()) == list(state)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())

    def test_fusing_leaves_mixed_modes(self):
        model = NETWORKS["resnet"]()
        for index, module in enumerate(model.modules()):
            module.training = index % 3 == 0
        before = [module.training for module in model.modules()]
        fuse(model)
        assert [module.training for module in model.modules()] == before

    @pytest.mark.parametrize("training", [True, False])
    def test_what_is_not_the_models_has_its_mode(self, training):
        model = NETWORKS["biases"]().train(training)
        assert {module.training for module in fuse(model).modules()} == {training}

    def test_noise_layers_are_the_models_in_its_order(self, fused):
        assert [id(layer) for layer in noise_layers(fused)] == [id(layer) for layer in noise_layers(fused.model)]

    def test_a_copy_is_its_own(self, fused, batch):
        fused(batch)
        twin = copy.deepcopy(fused)
        assert_same(twin, batch, plain=fused.model)
        set_by_hand(fused.model)
        with noise_from(twin, Keyed(1)), noise_from(fused, Keyed(1)):
            assert (twin(batch) - fused(batch)).abs().max() > 1e-3
        set_by_hand(twin.model)
        assert_same(twin, batch, plain=fused.model)

    def test_a_compiler_that_fails_leaves_the_network_as_it_was(self, fused, batch, monkeypatch):
        def compiled(function, **options):
            del function, options

            def fails(*args):
                del args
                raise RuntimeError("no compiler\nand much more")

            return fails

        monkeypatch.setattr(torch, "compile", compiled)
        with pytest.raises(ArgumentError, match=r"network that torch\.compile can compile, got no compiler$"):
            fused.compile_for(batch)
        assert_same(fused, batch)

    def test_compiled_operations_serve_what_comes_later(self, fused, batch, monkeypatch):
        made = []
        monkeypatch.setattr(torch, "compile", lambda function, **options: made.append(options) or function)
        fused.compile_for(batch)
        assert len(made) == 2  # with batch norms folded, and with them in their place
        set_by_hand(fused.model)
        assert_same(fused, batch)


class TestExactEnds:
    """Under autocast the first and the last layer keep their precision, and nothing else changes."""

    def test_only_the_middle_is_rounded(self, images):
        model = learned(NETWORKS["biases"]()).float().requires_grad_(False)
        assert_close(fuse(model, exact_ends=True)(images), model(images), rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            logits = fuse(model, exact_ends=True)(images)
        by_hand = model[:3](images)
        for conv, rest in ((model[3], model[4:6]), (model[6], model[7:8])):
            norm = rest[0] if isinstance(rest[0], _BatchNorm) else None
            gain = torch.ones(len(conv.weight)) if norm is None else (norm.running_var + norm.eps).rsqrt() * norm.weight
            shift = conv.bias if norm is None else (conv.bias - norm.running_mean) * gain + norm.bias
            weight = (conv.weight * gain.view(-1, 1, 1, 1)).bfloat16()
            by_hand = rest[-1](torch.nn.functional.conv2d(by_hand.bfloat16(), weight, shift.bfloat16()))
        by_hand = model[8](by_hand.float())
        assert logits.dtype == torch.float32
        assert_close(logits, by_hand, rtol=0, atol=0.02 * by_hand.abs().max().item())
        assert (logits - by_hand).abs().mean() < 0.3 * (logits - model(images)).abs().mean()

    def test_the_ends_are_those_of_the_network_not_of_the_noise(self):
        # Layers without noise stand last among those that are fused: here it is the first one.
        model = NETWORKS["biases"]()
        inject(model[3], weights=CNI(rank=2))
        layers = {layer.name: layer.exact for layer in fuse(model, exact_ends=True).weights.layers}
        assert layers == {"model.0": True, "model.3": False, "model.6": False, "model.8": True}

    def test_a_single_layer_is_both_ends(self, images):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)).requires_grad_(False)
        expected = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            assert_close(fuse(model, exact_ends=True)(images), expected)


class TestStacked:
    """Several draws in one pass are those draws one by one, with images and noise of their own."""

    @pytest.mark.parametrize("name", list(NETWORKS))
    @pytest.mark.parametrize("norms", ["folded", "in place"])
    def test_each_draw_is_its_own(self, name, norms, images):
        model = NETWORKS[name]()
        inject(model, weights=CNI(rank=2))
        learned(model).requires_grad_(False)
        fused = fuse(model)
        assert fused.stacks
        if norms == "in place":
            for norm in fused.weights._norms:
                norm.running_mean = norm.running_var = None
        inputs = images[:6].double().view(3, 2, 3, 8, 8)
        sources = [Keyed(4, draw) for draw in range(3)]
        with torch.no_grad():
            together = fused.stacked(inputs, sources)
            for draw, source, of_draw in zip(inputs, sources, together, strict=True):
                with noise_from(model, source):
                    assert_close(of_draw, model(draw), rtol=1e-9, atol=1e-9)
        assert (together[0] - together[1]).abs().max() > 1e-3

    def test_noise_that_is_off_stays_off(self, images):
        model = NETWORKS["biases"]()
        inject(model, weights=PNI())
        learned(model).requires_grad_(False)
        fused = fuse(model)
        inputs = images[:2].double().expand(2, 2, 3, 8, 8)
        with noiseless(model):
            first, second = fused.stacked(inputs, [Keyed(0), Keyed(1)])
        assert torch.equal(first, second)

    def test_noise_elsewhere_can_not_be_stacked(self):
        model = NETWORKS["biases"]()
        inject(model[3], weights=PNI())
        assert fuse(model).stacks
        inject(model[0], activations=PNI())
        assert not fuse(model).stacks
