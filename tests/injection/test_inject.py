"""Which layers change, what the report says, and that undo leaves nothing behind."""

import copy
import json
import math
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.testing import assert_close

from smoothed.errors import ArgumentError, CheckpointError
from smoothed.injection import (
    CNI,
    PNI,
    Additive,
    NoiseStrengthWarning,
    count_weight_normals,
    frozen,
    inject,
    inject_preset,
    injected_noise,
    noise_from,
    noise_layers,
    noiseless,
    reinject,
)
from smoothed.injection.cni import CNILayer
from smoothed.injection.pni import PNILayer
from smoothed.rng.sources import Fresh


@pytest.fixture(autouse=True)
def seeded_globally():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Mixed(nn.Module):
    """A user's own network, with every kind of layer that can be noisy, from (N, 2, 8) to (N, 3)."""

    def __init__(self):
        super().__init__()
        self.along = nn.Conv1d(2, 3, 3, padding=1)
        self.plane = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.ReLU())
        self.up = nn.ConvTranspose2d(2, 3, 2)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 3)

    def forward(self, inputs):
        plane = self.plane(self.along(inputs).unsqueeze(1))
        return self.head(self.norm(self.up(plane)).mean((2, 3)))


NOISY = ["along", "plane.0", "up", "head"]


@pytest.fixture
def mixed():
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return Mixed().eval()


@pytest.fixture
def signals(generator):
    return torch.rand(5, 2, 8, generator=generator)


def places(injection):
    return [(change.layer, change.target) for change in injection.changes]


class TestWhere:
    def test_every_convolution_and_linear_layer(self, mixed, signals):
        injection = inject(mixed, weights=PNI(), activations=CNI())
        assert places(injection) == [(name, target) for name in NOISY for target in ("weight", "activation")]
        assert mixed(signals).isfinite().all()
        assert (mixed(signals) - mixed(signals)).abs().max() > 1e-3

    def test_laws_by_type(self, network):
        injection = inject(network, weights={nn.Conv2d: CNI(rank=5), nn.Linear: PNI("element")})
        assert [(change.layer, change.law) for change in injection.changes] == [
            ("0", CNI(rank=5)),
            ("4", CNI(rank=5)),
            ("7", PNI("element")),
        ]
        kinds = [type(layer) for layer in noise_layers(network)]
        assert kinds == [CNILayer, CNILayer, PNILayer]

    def test_a_type_without_a_law_is_left_alone(self, mixed):
        injection = inject(mixed, weights={nn.Conv1d: PNI(), nn.Linear: CNI()})
        assert places(injection) == [("along", "weight"), ("head", "weight")]

    def test_by_names(self, mixed):
        injection = inject(mixed, weights=PNI(), layers=["head", "plane.0"])
        assert places(injection) == [("plane.0", "weight"), ("head", "weight")]

    def test_by_predicate(self, mixed):
        injection = inject(mixed, weights=PNI(), layers=lambda name, layer: name == "up" or layer is mixed.head)
        assert places(injection) == [("up", "weight"), ("head", "weight")]

    def test_a_bare_layer(self):
        layer = nn.Linear(2, 2)
        injection = inject(layer, weights=PNI(), activations=PNI())
        assert places(injection) == [("", "weight"), ("", "activation")]
        assert "(the model).weight" in str(injection)
        injection.undo()
        assert type(layer) is nn.Linear

    def test_sites(self, mixed, signals):
        """An input's noise has the channels that go in, an output's those that come out."""
        for site, sizes in (("input", [2, 1, 2, 3]), ("output", [3, 2, 3, 3])):
            injection = inject(mixed, activations=CNI(rank=0, site=site))
            assert [change.parameters for change in injection.changes] == sizes
            mixed(signals)
            injection.undo()

    def test_numbers_run_through_a_network_injected_twice(self, mixed):
        inject(mixed, weights=PNI(), layers=["head"])
        inject(mixed, activations=PNI(), layers=["along", "head"])
        with frozen(mixed):
            assert sorted(layer.index for layer in noise_layers(mixed)) == [1, 2, 3]


def test_report_and_sizes(network):
    injection = inject(network, weights={nn.Conv2d: CNI(rank=5), nn.Linear: PNI("element")})
    # d and five columns of F for 6 * 3 * 9 and 6 * 6 * 9 weights; one alpha for each of 4 * 216.
    sizes = [6 * 162, 6 * 324, 864]
    assert [change.parameters for change in injection.changes] == sizes
    lines = str(injection).splitlines()
    assert lines[0] == f"noise on 3 weights and activations, {sum(sizes):,} parameters"
    assert lines[2].startswith("  4.weight: CNI(rank=5")
    assert lines[2].endswith("1,944 parameters")
    learned = [parameter for layer in noise_layers(network) for parameter in layer.parameters()]
    assert sum(parameter.numel() for parameter in learned) == sum(sizes)
    assert all(parameter.requires_grad for parameter in learned)


NOISE_LAWS = {
    "weights": {"weights": CNI()},
    "inputs": {"activations": CNI()},
    "outputs": {"activations": PNI("channel", site="output")},
    "both": {"weights": PNI("element"), "activations": CNI(site="output")},
}


@pytest.mark.parametrize("laws", NOISE_LAWS.values(), ids=NOISE_LAWS)
class TestUndo:
    def test_nothing_is_left(self, laws, mixed, signals):
        clean, parameters, buffers = mixed(signals), list(mixed.parameters()), list(mixed.buffers())
        classes, names = [type(module) for module in mixed.modules()], list(mixed.state_dict())
        inject(mixed, **laws).undo()
        assert list(mixed.state_dict()) == names
        for now, before in zip([*mixed.parameters(), *mixed.buffers()], [*parameters, *buffers], strict=True):
            assert now is before
        assert [type(module) for module in mixed.modules()] == classes
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in mixed.modules())
        assert torch.equal(mixed(signals), clean)

    def test_weights_learned_in_between_stay(self, laws, mixed, signals):
        injection = inject(mixed, **laws)
        optimizer = torch.optim.SGD(mixed.parameters(), lr=0.1)
        mixed(signals).square().sum().backward()
        optimizer.step()
        with noiseless(mixed):
            learned = mixed(signals)
        injection.undo()
        assert torch.equal(mixed(signals), learned)

    def test_a_users_hooks_stay(self, laws, mixed, signals):
        seen = []
        mixed.head.register_forward_pre_hook(lambda layer, args: seen.append(layer))  # noqa: ARG005
        mixed.head.register_forward_hook(lambda layer, args, output: seen.append(layer))  # noqa: ARG005
        inject(mixed, **laws).undo()
        mixed(signals)
        assert seen == [mixed.head] * 2

    def test_weight_norm_below_ours_stays(self, laws, mixed, signals):
        parametrizations.weight_norm(mixed.along)
        clean, names = mixed(signals), list(mixed.state_dict())
        injection = inject(mixed, **laws)
        assert (mixed(signals) - clean).abs().max() > 1e-3
        with noiseless(mixed):
            assert torch.equal(mixed(signals), clean)
        injection.undo()
        assert parametrize.is_parametrized(mixed.along, "weight")
        assert not noise_layers(mixed)
        assert list(mixed.state_dict()) == names
        assert torch.equal(mixed(signals), clean)

    def test_a_parametrization_above_ours_stays(self, laws, mixed, signals):
        class Double(nn.Module):
            def forward(self, weight):
                return 2 * weight

        twin = copy.deepcopy(mixed)
        twin.along.weight.data.mul_(2)
        injection = inject(mixed, **laws)
        parametrize.register_parametrization(mixed.along, "weight", Double(), unsafe=True)
        with pytest.raises(ArgumentError, match="layers without noise"):
            inject(mixed, **laws)
        injection.undo()
        assert not noise_layers(mixed)
        assert_close(mixed(signals), twin(signals))

    def test_noise_can_come_back(self, laws, mixed, signals):
        inject(mixed, **laws).undo()
        inject(mixed, **laws)
        assert (mixed(signals) - mixed(signals)).abs().max() > 1e-3

    def test_round_trip_through_json(self, laws, mixed, signals):
        twin = copy.deepcopy(mixed)
        described = json.loads(json.dumps(inject(mixed, **laws).to_json()))
        reinject(twin, described)
        twin.load_state_dict(mixed.state_dict())
        assert [layer.index for layer in noise_layers(twin)] == [layer.index for layer in noise_layers(mixed)]
        with frozen(mixed), frozen(twin):
            assert torch.equal(mixed(signals), twin(signals))

    def test_state_dict_round_trip(self, laws, mixed, signals):
        twin = copy.deepcopy(mixed)
        inject(mixed, **laws)
        inject(twin, **laws)
        with torch.no_grad():
            for parameter in mixed.parameters():
                parameter.add_(0.01 * torch.rand_like(parameter))
        twin.load_state_dict(mixed.state_dict())
        with frozen(mixed), frozen(twin):
            assert torch.equal(mixed(signals), twin(signals))


def test_one_target_of_two_can_be_undone(mixed, signals):
    weights = inject(mixed, weights=PNI())
    activations = inject(mixed, activations=PNI())
    weights.undo()
    assert len(noise_layers(mixed)) == len(NOISY)
    activations.undo()
    assert not noise_layers(mixed)
    mixed(signals)


def test_injections_add_up(mixed, signals):
    """The sum tells of all changes and undoes them, whatever their order and their targets."""
    clean, names = mixed(signals), list(mixed.state_dict())
    first = inject(mixed, weights=PNI(), layers=["head", "up"])
    second = inject(mixed, activations=CNI(), layers=["head"])
    third = inject(mixed, weights=CNI(), layers=["along"])
    both = third + first + second
    assert places(both) == [("along", "weight"), ("up", "weight"), ("head", "weight"), ("head", "activation")]
    assert str(both).startswith("noise on 4 weights and activations, ")
    assert [change["layer"] for change in both.to_json()] == ["along", "up", "head", "head"]
    both.undo()
    assert not noise_layers(mixed)
    assert list(mixed.state_dict()) == names
    assert torch.equal(mixed(signals), clean)


class Counting(Fresh):
    """A source that says how many normals weights asked for."""

    count = 0

    def shared(self, layer, shape, like):
        self.count += math.prod(shape)
        return super().shared(layer, shape, like)


@pytest.mark.parametrize(
    "laws",
    [
        {"weights": PNI("layer")},
        {"weights": CNI(rank=3)},
        {"weights": {nn.Conv2d: CNI(rank=0), nn.Linear: PNI("element")}, "activations": CNI()},
        {"activations": PNI()},
    ],
)
def test_weight_normals_is_what_a_pass_draws(laws, mixed, signals):
    assert count_weight_normals(mixed) == 0
    inject(mixed, **laws)
    parametrize.register_parametrization(mixed.up, "bias", nn.Identity())
    source = Counting()
    with noise_from(mixed, source):
        mixed(signals)
    assert count_weight_normals(mixed) == source.count
    assert (source.count > 0) == ("weights" in laws)


def test_undo_leaves_a_copy_alone(mixed, signals):
    injection = inject(mixed, weights=PNI())
    twin = copy.deepcopy(mixed)
    injection.undo()
    assert (twin(signals) - twin(signals)).abs().max() > 1e-3


class TestErrors:
    def test_twice(self, mixed):
        inject(mixed, weights=PNI(), layers=["up"])
        before = list(mixed.state_dict())
        with pytest.raises(
            ArgumentError,
            match=r"layers without noise, got up\.weight, which already has noise; undo its injection first",
        ):
            inject(mixed, weights=CNI())
        inject(mixed, activations=PNI(), layers=["up"])
        with pytest.raises(ArgumentError, match=r"got up\.activation, which already has noise"):
            inject(mixed, activations=CNI())
        assert [name for name in mixed.state_dict() if not name.startswith("up.activation")] == before

    @pytest.mark.parametrize("name", ["nowhere", "norm", "plane"])
    def test_unknown_layer(self, mixed, name):
        with pytest.raises(ArgumentError, match=f"layers: expected names of convolutions or linear .*, got '{name}'"):
            inject(mixed, weights=PNI(), layers=["head", name])
        assert not noise_layers(mixed)

    def test_no_law(self, mixed):
        with pytest.raises(
            ArgumentError, match="weights: expected a noise law for weights or for activations, got neither"
        ):
            inject(mixed)

    @pytest.mark.parametrize(
        "options",
        [{"weights": {nn.Conv3d: PNI()}}, {"weights": PNI(), "layers": []}, {"weights": {}}],
        ids=["type", "layers", "laws"],
    )
    def test_nothing_to_change(self, mixed, options):
        with pytest.raises(ArgumentError, match="model: expected at least one convolution or linear layer"):
            inject(mixed, **options)

    @pytest.mark.parametrize(
        "change",
        [
            {"layer": "head", "target": "weight", "law": "XNI"},
            {"layer": "nowhere", "target": "weight", "law": "PNI"},
            {"layer": "head", "target": "bias", "law": "PNI"},
            {"layer": "head", "target": "weight", "law": "PNI", "rank": 5},
            {"layer": "head", "target": "weight", "law": "PNI", "granularity": "row"},
            {"target": "weight", "law": "PNI"},
        ],
    )
    def test_foreign_description(self, mixed, change):
        with pytest.raises(CheckpointError, match="injection: expected noise that fits the network, got"):
            reinject(mixed, [change])
        assert not noise_layers(mixed)


@pytest.mark.parametrize("laws", NOISE_LAWS.values(), ids=NOISE_LAWS)
def test_channels_last(laws, network, images):
    inject(network, **laws)
    network.to(memory_format=torch.channels_last)
    logits = network(images.to(memory_format=torch.channels_last))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("law", [PNI("channel"), CNI()])
def test_noise_has_its_weights_dtype(law):
    layer = nn.Linear(3, 2).double()
    inject(layer, weights=law, activations=law)
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}
    assert layer(torch.rand(4, 3, dtype=torch.float64)).dtype == torch.float64


def test_the_channels_of_a_transposed_convolution_are_its_outputs():
    layer = nn.ConvTranspose2d(3, 5, 2)
    inject(layer, weights=PNI("channel"))
    assert noise_layers(layer)[0].alpha.shape == (1, 5, 1, 1)


def test_what_can_not_take_noise_is_said_before_anything_changes():
    lazy = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2))
    with pytest.raises(ArgumentError, match="expected initialised layers, got 1, a lazy layer"):
        inject(lazy, weights=PNI())
    assert not noise_layers(lazy)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_weight_that_a_hook_computes_can_not_take_noise():
    hooked = nn.Sequential(nn.Linear(2, 2), nn.utils.weight_norm(nn.Linear(2, 2)))
    with pytest.raises(ArgumentError, match="expected weights that are parameters, got 1, whose weight is computed"):
        inject(hooked, weights=PNI())
    assert not noise_layers(hooked)


@pytest.mark.parametrize(
    "laws",
    [
        {"weights": CNI(rank=2)},
        {"weights": {nn.Conv2d: PNI("element"), nn.Linear: CNI()}},
        {"activations": Additive(0.3)},
        {"weights": PNI(), "activations": CNI(site="output")},
    ],
)
def test_strength_is_a_factor_on_the_deviation(laws, network):
    """CNI's d is a variance."""
    noises = []
    for strength in (1.0, 0.25):
        twin = copy.deepcopy(network)
        inject(twin, **laws, strength=strength)
        noises.append([dict(layer.state_dict()) for layer in noise_layers(twin)])
    for full, quarter in zip(*noises, strict=True):
        for name, tensor in full.items():
            assert_close(quarter[name], tensor * (0.25**2 if name == "variance" else 0.25))


@pytest.mark.parametrize("strength", [-0.1, float("inf"), float("nan"), True, "1"])
def test_what_is_no_strength(network, strength):
    with pytest.raises(ArgumentError, match="strength: expected a finite number of at least 0, got"):
        inject(network, weights=PNI(), strength=strength)
    with pytest.raises(ArgumentError, match="strength: expected a finite number of at least 0, got"):
        inject_preset(network, "pni-w", strength)
    assert not noise_layers(network)


@pytest.mark.parametrize(
    ("laws", "warned"),
    [
        ({"weights": CNI()}, True),
        ({"activations": PNI(initial=0.5)}, True),
        ({"weights": {nn.Linear: PNI()}}, True),
        ({"weights": CNI(), "strength": 0.5}, False),
        ({"weights": PNI(initial=0.2)}, False),
        ({"activations": Additive(5.0)}, False),
    ],
)
def test_published_strength_on_a_network_that_was_trained(network, images, laws, warned):
    """Batch norms count the training batches that they have seen."""
    advice = "noise of the published strength, the accuracy of a network"
    untrained = copy.deepcopy(network)
    assert (advice in str(inject(untrained, **laws)).lower()) == warned
    network.train()(images)
    with pytest.warns(NoiseStrengthWarning, match=advice) if warned else nullcontext():
        injection = inject(network.eval(), **laws)
    described = injection.to_json()
    injection.undo()
    reinject(network, described)  # as checkpoints are loaded, without a warning


def test_noise_is_found_again(mixed):
    """In the order of the layers, in copies too, until it is undone."""
    assert injected_noise(mixed).changes == ()
    parametrizations.weight_norm(mixed.along)
    first = inject(mixed, weights={nn.Linear: PNI("element")}, activations=CNI(rank=1, site="output"))
    second = inject(mixed, weights=CNI(rank=2), layers=["along"])
    found = injected_noise(copy.deepcopy(mixed))
    assert sorted(found.changes, key=str) == sorted((first + second).changes, key=str)
    found.undo()
    assert not noise_layers(found.model)
    assert len(noise_layers(mixed)) == len(found.changes)
    assert parametrize.is_parametrized(found.model.along, "weight")
    assert injected_noise(found.model).changes == ()
