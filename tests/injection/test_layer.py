"""The switches around noise layers: off, frozen, from another source; and whose noise is whose."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from smoothed.injection import CNI, PNI, frozen, inject, noise_from, noise_layers, noiseless
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh, Keyed
from smoothed.utils.modes import eval_mode

WEIGHTS = {"weights": CNI()}
ACTIVATIONS = {"activations": CNI()}
BOTH = {"weights": PNI("element"), "activations": PNI("channel")}
laws = pytest.mark.parametrize("laws", [WEIGHTS, ACTIVATIONS, BOTH], ids=["weights", "activations", "both"])


@pytest.fixture(autouse=True)
def seeded_globally():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def sources(model):
    return [layer.source for layer in noise_layers(model)]


@laws
class TestSwitches:
    def test_noise_is_fresh_at_each_pass_in_train_and_eval_mode(self, laws, network, images):
        network[3] = nn.Identity()  # dropout has randomness of its own
        inject(network, **laws)
        for mode in (True, False):
            network.train(mode)
            assert (network(images) - network(images)).abs().max() > 1e-3

    def test_noiseless_is_the_original_network(self, laws, network, images):
        clean = network(images)
        inject(network, **laws)
        with noiseless(network):
            assert torch.equal(network(images), clean)
        assert (network(images) - clean).abs().max() > 1e-3

    def test_frozen_repeats_one_draw(self, laws, network, images):
        clean = network(images)
        inject(network, **laws)
        with frozen(network):
            first, second = network(images), network(images)
        with frozen(network):
            again = network(images)
        with frozen(network, seed=1):
            other = network(images)
        assert torch.equal(first, second)
        assert torch.equal(first, again)
        assert (first - clean).abs().max() > 1e-3
        assert (first - other).abs().max() > 1e-3

    def test_nested_blocks_and_errors_give_the_sources_back(self, laws, network, images):
        inject(network, **laws)
        before = sources(network)
        with frozen(network):
            outer, once = sources(network), network(images)
            with noiseless(network):
                assert sources(network) == [None] * len(before)
                with pytest.raises(ZeroDivisionError), noise_from(network, Fresh(seeded(1))):
                    raise ZeroDivisionError
                assert sources(network) == [None] * len(before)
                with noise_from(network, Fresh(seeded(1))):
                    assert (network(images) - once).abs().max() > 1e-3
            assert sources(network) == outer
            assert torch.equal(network(images), once)
        assert sources(network) == before

    def test_one_generator_decides_every_draw(self, laws, network, images):
        inject(network, **laws)
        state = torch.get_rng_state()
        outputs = []
        for _ in range(2):
            with noise_from(network, Fresh(seeded(5))):
                outputs.append((network(images), network(images)))
        assert torch.equal(outputs[0][0], outputs[1][0])
        assert torch.equal(outputs[0][1], outputs[1][1])
        assert not torch.equal(*outputs[0])
        assert torch.equal(torch.get_rng_state(), state)

    def test_a_copy_has_its_own_noise(self, laws, network, images):
        injection = inject(network, **laws)
        twin = copy.deepcopy(network)
        with frozen(network), frozen(twin):
            assert torch.equal(network(images), twin(images))
        with noiseless(network):
            still, noisy = network(images), twin(images)
            assert torch.equal(network(images), still)
            assert (twin(images) - noisy).abs().max() > 1e-3
        with torch.no_grad():  # strengths are the copy's own too
            for layer in noise_layers(twin):
                for parameter in layer.parameters():
                    parameter.zero_()
        assert_close(twin(images), still, rtol=1e-4, atol=1e-4)
        assert (network(images) - still).abs().max() > 1e-3
        injection.undo()
        assert not noise_layers(network)
        assert len(noise_layers(twin)) == len(injection.changes)
        twin(images)

    def test_mode_switches_do_not_touch_noise(self, laws, network, images):
        inject(network, **laws)
        before = sources(network)
        with eval_mode(network):
            assert (network(images) - network(images)).abs().max() > 1e-3
        assert sources(network) == before


def test_weight_noise_is_shared_by_the_batch(network, images):
    inject(network, weights=PNI("element"))
    twins = images[:1].repeat(4, 1, 1, 1)
    first, second = network(twins), network(twins)
    assert_close(first, first[:1].expand_as(first), rtol=1e-5, atol=1e-5)
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("law", [PNI(), CNI()])
def test_activation_noise_is_each_images_own(network, images, law):
    inject(network, activations=law)
    logits = network(images[:1].repeat(4, 1, 1, 1))
    differences = (logits[:, None] - logits[None]).abs().amax(-1)
    assert differences[~torch.eye(4, dtype=torch.bool)].min() > 1e-3


@pytest.mark.parametrize("law", [PNI("layer"), PNI("channel"), CNI(), CNI(site="output")])
def test_an_images_activation_noise_does_not_depend_on_its_batch(network, images, law):
    inject(network, activations=law)
    draws, numbers = [i % 3 for i in range(16)], [40 + i for i in range(16)]
    with noise_from(network, Keyed(9, draws, numbers)):
        whole = network(images)
    order = [12, 3, 7]
    with noise_from(network, Keyed(9, [draws[i] for i in order], [numbers[i] for i in order])):
        assert_close(network(images[order]), whole[order], rtol=1e-5, atol=1e-5)
    with noise_from(network, Keyed(9, draws[3], numbers[3:4])):
        assert_close(network(images[3:4]), whole[3:4], rtol=1e-5, atol=1e-5)
    with noise_from(network, Keyed(9, draws[3], [0])):
        assert (network(images[3:4]) - whole[3:4]).abs().max() > 1e-3


def test_layers_have_different_noise_under_one_key():
    """Equal layers side by side: keyed noise differs by the layer's number."""
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    inject(network, weights=PNI())
    with frozen(network):
        assert [layer.index for layer in noise_layers(network)] == [1, 2]
        noises = [(layer.weight - layer.parametrizations.weight.original) / layer.weight.std() for layer in network]
    assert (noises[0] - noises[1]).abs().max() > 0.01


def test_a_plain_function_has_no_noise_to_switch():
    assert noise_layers(torch.sin) == []
    with noiseless(torch.sin), frozen(torch.sin), noise_from(torch.sin, None):
        pass


@pytest.mark.parametrize("law", [PNI(), CNI()])
def test_one_element_has_no_spread_and_no_nan(law):
    network = nn.Linear(1, 1)
    inject(network, weights=law, activations=law)
    assert network(torch.ones(5, 1)).isfinite().all()


def test_noise_stays_in_single_precision_under_autocast(network, images):
    inject(network, weights=CNI(), activations=CNI())
    seen = []
    for layer in noise_layers(network):
        layer.register_forward_hook(lambda layer, args, output: seen.append((args[0].dtype, output.dtype)))  # noqa: ARG005
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(images)
    assert logits.isfinite().all()
    assert len(seen) == 6
    assert {output for _, output in seen} == {torch.float32}
