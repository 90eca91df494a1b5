"""Checkpoints and networks that do not fit each other, and networks of one's own."""

from functools import partial

import pytest
import torch
from torch import nn

from smoothed import checkpoint
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.injection import CNI, PNI, frozen, inject, inject_preset, noise_layers
from smoothed.models import ARCHITECTURES, CIFAR10_MEAN, CIFAR10_STD, ResNet, WideResNet

CLASSES = tuple("abcde")


@pytest.fixture(autouse=True)
def small_architectures(monkeypatch):
    """The smallest network of each family, which the tests save and load by name."""
    monkeypatch.setitem(ARCHITECTURES, "resnet8", partial(ResNet, 8))
    monkeypatch.setitem(ARCHITECTURES, "wide_resnet10_1", partial(WideResNet, 10, 1))


@pytest.fixture
def resnet8():
    return checkpoint.build("resnet8", num_classes=len(CLASSES), mean=CIFAR10_MEAN, std=CIFAR10_STD)


def write(path, model, **changes):
    return checkpoint.save(path, model, {**checkpoint.describe("resnet8", model, [], CLASSES), **changes})


class Own(nn.Module):
    """A network without a Normalize layer, from (N, 3, 8, 8) to three logits."""

    def __init__(self, width=4):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(36 * width, 3)

    def forward(self, inputs):
        return self.head(self.body(inputs))


NOISY = {"injection": [{"layer": "conv1", "target": "weight", "law": "CNI"}]}


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        # A deeper network wants two more blocks a stage, of twelve tensors each; the first three are named.
        (
            {"architecture": "resnet20"},
            r"missing: layer1\.1\.conv1\.weight, layer1\.1\.bn1\.weight, layer1\.1\.bn1\.bias and 69 more$",
        ),
        (
            {"classes": ["a", "b"]},
            r"other shapes: linear\.weight \(5, 64\) in the file, \(2, 64\) in the network, linear\.bias .*$",
        ),
        (
            NOISY,
            r"missing: conv1\.parametrizations\.weight\.original, conv1\.parametrizations\.weight\.0\.variance, "
            r"conv1\.parametrizations\.weight\.0\.factor; unexpected: conv1\.weight$",
        ),
        (
            {"architecture": "wide_resnet10_1"},
            r"missing: layer2\.0\.shortcut\.weight, layer3\.0\.shortcut\.weight; unexpected: layer.* and 9 more; "
            r"other shapes: layer2\.0\.bn1\.weight \(32,\) in the file, \(16,\) in the network, .* and 9 more$",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(changes, got, resnet8, tmp_path):
    path = write(tmp_path / "model.safetensors", resnet8, **changes)
    with pytest.raises(CheckpointError, match=f"expected weights that fit the network, got: {got}") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_load_into_a_network_that_does_not_fit_changes_no_weight(resnet8, tmp_path):
    path, own = write(tmp_path / "model.safetensors", resnet8), Own()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r"missing: body\.0\.weight, .* and 6 more; unexpected: bn1\.bias, .* and 55 more$"
    ):
        checkpoint.load_into(own, path)
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


class TestMisfit:
    def shapes(self, **shapes):
        return {name: torch.zeros(shape) for name, shape in shapes.items()}

    def test_all_fit(self):
        assert checkpoint.misfit(self.shapes(a=(2,), b=()), self.shapes(b=(), a=(2,))) == ""
        assert checkpoint.misfit({}, {}) == ""

    def test_each_kind(self):
        got = checkpoint.misfit(self.shapes(a=(2, 3), b=(1,), c=()), self.shapes(a=(3, 2), c=(), d=(4,)))
        assert got == "missing: d; unexpected: b; other shapes: a (2, 3) in the file, (3, 2) in the network"

    def test_three_are_named_and_the_others_counted(self):
        many = {f"t{index}": torch.zeros(2) for index in range(5)}
        assert checkpoint.misfit({}, many) == "missing: t0, t1, t2 and 2 more"
        assert checkpoint.misfit(many, {}) == "unexpected: t0, t1, t2 and 2 more"
        three = dict(list(many.items())[:3])
        assert checkpoint.misfit({}, three) == "missing: t0, t1, t2"

    def test_a_dtype_is_no_misfit(self):
        assert checkpoint.misfit({"a": torch.zeros(2)}, {"a": torch.zeros(2, dtype=torch.float64)}) == ""


class TestCustom:
    """A network of one's own: the header says so, and `load_into` fills what its owner built."""

    @pytest.fixture
    def saved(self, tmp_path):
        model = Own().eval()
        noise = inject(model, weights={nn.Conv2d: CNI(rank=2), nn.Linear: PNI("element")})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.3)
        header = checkpoint.describe("custom", model, noise.to_json(), tuple("xyz"), note="mine")
        return model, checkpoint.save(tmp_path / "own.safetensors", model, header)

    def test_header(self, saved):
        header = checkpoint.read_header(saved[1])
        assert header["architecture"] == checkpoint.CUSTOM == "custom"
        assert header["classes"] == ["x", "y", "z"]
        assert header["note"] == "mine"
        assert len(header["injection"]) == 2
        assert not {"mean", "std"} & set(header)  # whose normalisation is its own

    def test_load_refuses_with_a_hint(self, saved):
        with pytest.raises(
            CheckpointError, match=r"own\.safetensors: expected a network of this package, got .*--model package"
        ):
            checkpoint.load(saved[1])

    def test_load_into(self, saved, images):
        model, path = saved
        other = Own().eval()
        header = checkpoint.load_into(other, path)
        assert header["note"] == "mine"
        assert len(noise_layers(other)) == 2
        with frozen(model), frozen(other):
            assert torch.equal(other(images), model(images))

    def test_load_into_one_that_was_built_otherwise(self, saved):
        with pytest.raises(
            CheckpointError,
            match=r"other shapes: body\.0\.bias \(4,\) in the file, \(5,\) in the network, .* and 7 more$",
        ):
            checkpoint.load_into(Own(width=5), saved[1])


def test_describe_names_what_it_can_not_describe(resnet8):
    with pytest.raises(ArgumentError, match=r"architecture: expected one of resnet20, .*, custom, got 'mine'"):
        checkpoint.describe("mine", resnet8, [], CLASSES)
    resnet8.normalize = nn.Identity()
    with pytest.raises(
        ArgumentError,
        match="model: expected a network with a Normalize layer called `normalize`, got a layer of that name and of "
        "type Identity",
    ):
        checkpoint.describe("resnet8", resnet8, [], CLASSES)
    assert checkpoint.describe("custom", resnet8, [], CLASSES)["architecture"] == "custom"


def test_additive_noise_comes_back(resnet8, images, tmp_path):
    """A strength that is no parameter is kept, too."""
    noise = inject_preset(resnet8, "rse", strength=0.5)
    for layer in noise_layers(resnet8):
        layer.scale_(3.0)
    path = write(tmp_path / "model.safetensors", resnet8, injection=noise.to_json())
    loaded = checkpoint.load(path)
    assert [round(layer.sigma.item(), 6) for layer in noise_layers(loaded)] == [0.3] + [0.15] * 8
    with frozen(resnet8.eval()), frozen(loaded):
        assert torch.equal(loaded(images), resnet8(images))
