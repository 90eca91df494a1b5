"""The weights of a draw against those that each layer makes itself, and what is kept of them between passes."""

import pytest
import torch
from torch.testing import assert_close

from fusible import INJECTIONS, NETWORKS, assert_same, learned, pulled_back
from smoothed.acceleration.fused_weights import FusedLayer, FusedWeights, can_fuse
from smoothed.acceleration.fusing import fuse
from smoothed.errors import ArgumentError
from smoothed.injection import CNI, PNI, inject, inject_preset, noise_from, noise_layers, noiseless
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh, Keyed
from smoothed.utils.modes import batch_statistics


@pytest.fixture(autouse=True)
def seeded_globally():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def batch(images):
    return images[:4].double()


@pytest.fixture(params=["none", "pni-channel", "cni-5", "mixed"])
def fused(request):
    model = NETWORKS["biases"]()
    INJECTIONS[request.param](model)
    return fuse(learned(model))


def by_hand(fused):
    """The weights that each layer makes itself, with the gain of the batch norm after it, and the biases."""
    model, weights, biases = fused.model, [], []
    for fused_layer in fused.weights.layers:
        place = int(fused_layer.name.removeprefix("model."))
        layer = model[place]
        weight, bias = layer.weight.detach(), layer.bias.detach()
        if place in {0, 3}:
            norm = model[place + 1]
            gain = (norm.running_var + norm.eps) ** -0.5
            gain, shift = (gain, 0) if norm.weight is None else (gain * norm.weight.detach(), norm.bias.detach())
            weight, bias = weight * gain.view(-1, 1, 1, 1), (bias - norm.running_mean) * gain + shift
        weights.append(weight)
        biases.append(bias)
    return weights, biases


def assert_all_close(got, expected):
    for each, other in zip(got, expected, strict=True):
        assert not each.requires_grad
        assert_close(each, other, rtol=1e-9, atol=1e-9)


class TestOfDraw:
    """Noise that is a function of a key is the same for a layer by itself."""

    def test_of_a_key(self, fused):
        for seed in (3, 4):
            with noise_from(fused, Keyed(seed)):
                distribution = fused.weights.distribution("cpu")
                weights, biases = by_hand(fused)
                assert_all_close(fused.weights.of_draw(distribution, "cpu"), weights)
            assert distribution.norms_folded
            assert_all_close(distribution.biases, biases)
        assert fused.weights.size == sum(weight.numel() for weight in weights)

    def test_of_layers_with_keys_of_their_own(self, fused):
        for number, noise in enumerate(noise_layers(fused)):
            noise.source, noise.index = None if number == 1 else Keyed(number), 7 + number
        weights, _ = by_hand(fused)
        assert_all_close(fused.weights.of_draw(fused.weights.distribution("cpu"), "cpu"), weights)

    def test_without_noise(self, fused):
        with noiseless(fused):
            weights, _ = by_hand(fused)
            assert_all_close(fused.weights.of_draw(fused.weights.distribution("cpu"), "cpu"), weights)

    def test_norms_that_are_no_fixed_function_are_left_out(self, fused):
        plain = [fused_layer.module.bias for fused_layer in fused.weights.layers]
        with batch_statistics(fused):
            distribution = fused.weights.distribution("cpu")
        assert not distribution.norms_folded
        assert_all_close(distribution.biases, [bias.detach() for bias in plain])
        with noiseless(fused):
            weights = fused.weights.of_draw(distribution, "cpu")
            assert_all_close(weights, [fused_layer.module.weight.detach() for fused_layer in fused.weights.layers])

    @pytest.mark.parametrize("fused", ["pni-channel", "cni-5", "mixed"], indirect=True)
    def test_of_several_keys(self, fused):
        keys = [Keyed(5, draw) for draw in range(3)]
        with noise_from(fused, keys[0]):
            together = fused.weights.of_keys(fused.weights.distribution("cpu"), "cpu", keys)
        for number, key in enumerate(keys):
            with noise_from(fused, key):
                weights, _ = by_hand(fused)
            assert_all_close([weight[number] for weight in together], weights)

    def test_autocast_rounds_all_but_exact_ones(self, fused):
        layers = fused.weights.layers
        fused.float()
        layers[0].exact = True
        with noise_from(fused, Keyed(2)):
            weights, _ = by_hand(fused)
            with torch.autocast("cpu", torch.bfloat16):
                exact, *rounded = fused.weights.of_draw(fused.weights.distribution("cpu"), "cpu")
        assert_close(exact, weights[0])
        for got, expected in zip(rounded, weights[1:], strict=True):
            assert got.dtype == torch.bfloat16
            assert_close(got.float(), expected, rtol=2**-7, atol=1e-6)

    def test_of_a_generator_by_what_it_gives(self):
        """One request: n of all layers, input channels last, and z of those with a factor, in the order of layers."""
        layer = torch.nn.Conv2d(2, 3, 2).double()
        inject(layer, weights=CNI(rank=2))
        fused_layer = FusedLayer("model", learned(layer))
        weights = FusedWeights([fused_layer])
        with noise_from(layer, Fresh(seeded(6))):
            (got,) = weights.of_draw(weights.distribution("cpu"), "cpu")
        drawn = torch.randn(24 + 2, generator=seeded(6), dtype=torch.float64)
        n = drawn[:24].view(3, 2, 2, 2).permute(0, 3, 1, 2)
        scale, factor = fused_layer.noise.linear_form(fused_layer.weight)
        assert_close(got, (fused_layer.weight + scale * n + (factor @ drawn[24:]).view(3, 2, 2, 2)).detach())


class TestFusedLayer:
    def test_vectors_have_input_channels_last(self):
        fused_layer = FusedLayer("model", torch.nn.Conv2d(2, 3, (1, 2), bias=False))
        weight = torch.arange(12.0).view(3, 2, 1, 2)
        vector = torch.tensor([weight[o, i, 0, x] for o in range(3) for x in range(2) for i in range(2)])
        assert torch.equal(fused_layer.flatten(weight), vector)
        assert torch.equal(fused_layer.unflatten(torch.stack([vector, -vector])), torch.stack([weight, -weight]))
        assert fused_layer.unflatten(vector[None])[0].is_contiguous(memory_format=torch.channels_last)
        pairs = torch.stack([weight, 2 * weight], -1)
        assert torch.equal(fused_layer.flatten(pairs), torch.stack([vector, 2 * vector], -1))

    def test_which_layers_fit(self):
        layer = torch.nn.Linear(2, 3)
        assert can_fuse(layer)
        assert not can_fuse(torch.nn.ReLU())
        assert not can_fuse(torch.nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"))
        handle = layer.register_forward_hook(lambda *_: None)
        assert not can_fuse(layer)
        handle.remove()
        assert can_fuse(inject(layer, weights=CNI(rank=1)) and layer)
        torch.nn.utils.parametrizations.weight_norm(other := torch.nn.Linear(2, 3))
        assert not can_fuse(other)


def set_by_hand(model):
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.mul_(1.1 + 0.01 * index)


def step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(2):
        model(torch.rand(4, 3, 8, 8).to(next(model.parameters()).dtype)).square().sum().backward()
        optimizer.step()
    model.zero_grad()


def new_statistics(model):
    model.train()(torch.rand(4, 3, 8, 8).to(next(model.parameters()).dtype))
    model.eval()


def another_state(model):
    return {
        name: 1.3 * value if value.is_floating_point() else value.clone() for name, value in model.state_dict().items()
    }


def swapped(model):
    """New memory, twice: the second time the weight would lie where it lay at first, at the same version."""
    weight = model[3].parametrizations.weight.original
    for _ in range(2):
        weight.data = 1.1 * weight.data


CHANGES = {
    "by hand": set_by_hand,
    "steps": step,
    "statistics": new_statistics,
    "loaded": lambda model: model.load_state_dict(another_state(model)),
    "assigned": lambda model: model.load_state_dict(another_state(model), assign=True),
    "swapped": swapped,
    "strengths": lambda model: [layer.scale_(2.0) for layer in noise_layers(model)],
    "one statistic": lambda model: model[1].running_var.mul_(2),
    "another statistic": lambda model: model[1].running_mean.zero_(),
    "channels last": lambda model: model.to(memory_format=torch.channels_last),
}


class TestFollows:
    """What a fused network keeps between passes is no longer used once it is out of date."""

    @pytest.fixture
    def fused(self, batch):
        model = NETWORKS["biases"]()
        inject_preset(model, "cni-w")
        fused = fuse(learned(model))
        with noiseless(fused):
            fused(batch)
        return fused

    @pytest.mark.parametrize("before", [None, "moved"])
    @pytest.mark.parametrize("change", CHANGES)
    def test_changes(self, fused, batch, change, before):
        if before == "moved":  # buffers are then other tensors than when the network was fused
            fused.model.half().double()
            assert_same(fused, batch)
        clean = fused.model(batch)
        CHANGES[change](fused.model)
        assert_same(fused, batch)
        assert (fused.model(batch) - clean).abs().max() > 1e-3

    @pytest.mark.parametrize("which", ["fused", "model"])
    def test_another_dtype(self, fused, batch, which):
        (fused if which == "fused" else fused.model).to(torch.float32)
        assert_same(fused, batch.float(), rtol=1e-3, atol=1e-3)
        (fused if which == "fused" else fused.model).to(torch.float64)
        assert_same(fused, batch)

    def test_statistics_that_are_dropped(self, fused, batch):
        fused.model[1].running_mean = fused.model[1].running_var = None
        assert_same(fused, batch)

    def test_what_was_kept_in_inference_mode_serves_an_attack(self, fused, batch):
        set_by_hand(fused.model)
        with torch.inference_mode(), noiseless(fused):
            fused(batch)
        with noiseless(fused):
            pulled_back(fused, batch)
        assert_same(fused, batch)

    @pytest.mark.parametrize("again", [False, True])
    def test_other_noise_is_refused(self, again, network, images):
        injection = inject(network, weights=PNI(), layers=["4"])
        fused = fuse(network)
        fused(images)
        injection.undo()
        if again:
            inject(network, weights=CNI(), layers=["4"])
        with pytest.raises(ArgumentError, match="noise it was fused with, got other noise on 4; fuse it again"):
            fused(images)

    def test_noise_that_comes_later_is_refused(self, network, images):
        fused = fuse(network)
        fused(images)
        inject(network, weights=PNI(), layers=["7"])
        with pytest.raises(ArgumentError, match="noise it was fused with, got other noise on 7; fuse it again"):
            fused(images)
        assert_same(fuse(network), images, rtol=1e-3, atol=1e-4)


class TestKeptDraw:
    """The weights of a keyed draw, and those without noise, are made once for their passes, and anew else."""

    @pytest.fixture
    def fused(self):
        model = NETWORKS["biases"]()
        inject(model, weights=CNI(rank=2))
        return fuse(learned(model).float().requires_grad_(False))

    def draws(self, monkeypatch):
        made, draw = [], FusedWeights._draw
        monkeypatch.setattr(
            FusedWeights, "_draw", lambda self, distribution: made.append(1) or draw(self, distribution)
        )
        return made

    def test_once_for_all_passes_of_a_draw(self, fused, images, monkeypatch):
        made = self.draws(monkeypatch)
        with torch.no_grad():
            for draw in (3, 3, 4, 4, 3):
                with noise_from(fused, Keyed(1, [draw] * len(images), range(len(images)))):
                    assert_close(fused(images), fused.model(images), rtol=1e-4, atol=1e-4)
        assert len(made) == 3

    def test_not_once_what_it_depends_on_has_changed(self, fused, images, monkeypatch):
        made = self.draws(monkeypatch)

        def run():
            with noise_from(fused, Keyed(1)):
                return fused(images), fused.model(images)

        changes = [
            lambda: None,
            lambda: set_by_hand(fused.model),
            lambda: [layer.scale_(2.0) for layer in noise_layers(fused)],
        ]
        for change in changes:
            change()
            got, expected = run()
            assert_close(got, expected, rtol=1e-3, atol=1e-3)
        assert len(made) == 3
        with torch.autocast("cpu", torch.bfloat16):
            run()
        with torch.inference_mode():
            run()
        inputs = images.clone().requires_grad_()
        with noise_from(fused, Keyed(1)):
            assert torch.autograd.grad(fused(inputs).sum(), inputs)[0].abs().max() > 0
        assert len(made) == 6
        with noise_from(fused, Keyed(2)):
            fused(images)
        assert len(made) == 7

    def test_not_for_noise_of_a_generator(self, fused, images, monkeypatch):
        made = self.draws(monkeypatch)
        assert not torch.equal(fused(images), fused(images))
        assert len(made) == 2

    def test_once_without_noise_until_a_weight_changes(self, fused, images, monkeypatch):
        made = self.draws(monkeypatch)
        for change in (lambda _: None, set_by_hand):
            change(fused.model)
            with noiseless(fused):
                clean = fused(images)
                assert torch.equal(fused(images), clean)
                assert_close(clean, fused.model(images), rtol=1e-3, atol=1e-3)
            assert not torch.equal(fused(images), clean)
        assert len(made) == 4
