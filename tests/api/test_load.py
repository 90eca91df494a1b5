"""Loading any classifier: each way gives the network that plain torch gives, and what cannot be loaded is named."""

import itertools
import json
import pickle
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from smoothed import checkpoint
from smoothed.api.load import checkpoint_path, load
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.injection import CNI, frozen, inject, noise_layers
from smoothed.models import ARCHITECTURES, ModelAdapter, Normalize, ResNet

NUMBERS = itertools.count()
MEAN, STD = (0.1, 0.5, 0.9), (0.2, 0.5, 0.25)
MODULE = """
from torch import nn
import torch

class Own(nn.Module):
    def __init__(self, width=4, classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(36 * width, classes)

    def forward(self, inputs):
        return self.head(self.body(inputs))

def half(**arguments):
    return Own(**arguments).half()

def later(width):
    import {helper}
    return {helper}.make(width)

def fails():
    raise ValueError("first\\nsecond")

def number():
    return 3

def returns_a_class():
    return Own

def returns_a_function():
    return lambda inputs: inputs.flatten(1)[:, :4]

positional = lambda inputs: inputs
constant = 5
instance = Own().train()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, in which user's code and files lie; the import path is the same afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before, known = list(sys.path), set(sys.modules)
    yield tmp_path
    assert sys.path == before
    for name in set(sys.modules) - known:
        if name.startswith("users_"):
            del sys.modules[name]


@pytest.fixture
def module(folder):
    """Name of a module of the user's in the current folder, which no other test uses."""
    name, helper = f"users_nets_{next(NUMBERS)}", f"users_helper_{next(NUMBERS)}"
    (folder / f"{name}.py").write_text(MODULE.format(helper=helper))
    (folder / f"{helper}.py").write_text(f"from {name} import Own\ndef make(width): return Own(width)")
    return name


@pytest.fixture
def own(module):
    """A network of the user's with random weights and statistics, in eval mode."""
    return randomised(load(f"{module}:Own"))


@pytest.fixture
def resnet8(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "resnet8", partial(ResNet, 8))
    return randomised(checkpoint.build("resnet8", num_classes=5).eval())


def randomised(model):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.2 * torch.rand(tensor.shape, generator=generator))
    return model


def equal(first, second):
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def write(path, model, injection=(), architecture="resnet8", classes="abcde"):
    return checkpoint.save(path, model, checkpoint.describe(architecture, model, list(injection), tuple(classes)))


class TestCheckpoints:
    @pytest.mark.usefixtures("folder")
    def test_bundled(self):
        state = torch.get_rng_state()
        model = load("resnet20-cni-w")
        assert torch.equal(torch.get_rng_state(), state)
        assert equal(model.state_dict(), checkpoint.load("resnet20-cni-w").state_dict())
        assert not any(layer.training for layer in model.modules())
        assert model.checkpoint_header == checkpoint.read_header(checkpoint.bundled()["resnet20-cni-w"])

    def test_paths(self, folder, resnet8):
        path = write(folder / "mine.safetensors", resnet8)
        for given in (path, str(path), "mine.safetensors"):
            assert equal(load(given).state_dict(), resnet8.state_dict())

    def test_zoo(self, folder, resnet8):
        write(folder / "zoo" / "net.v1.safetensors", resnet8)
        for given in ("zoo/net.v1", "zoo/net.v1.safetensors"):
            assert equal(load(given).state_dict(), resnet8.state_dict())
            assert checkpoint_path(given) == Path("zoo/net.v1.safetensors")
        assert checkpoint_path("resnet20-cni-w") == checkpoint.bundled()["resnet20-cni-w"]
        assert checkpoint_path("users:net") is None
        assert checkpoint_path(resnet8) is None
        with pytest.raises(ArgumentError, match=r"got 'zoo/net\.v2'; did you mean zoo/net\.v1\?"):
            load("zoo/net.v2")

    @pytest.mark.usefixtures("folder")
    def test_normalised_already(self):
        with pytest.raises(ArgumentError, match="normalize: expected None, because the model has a Normalize layer"):
            load("resnet20-cni-w", normalize=(MEAN, STD))

    def test_files_of_other_programs(self, folder, own):
        save_file(own.state_dict(), folder / "plain.safetensors")
        torch.save(own.state_dict(), folder / "plain.pt")
        for name in ("plain.safetensors", "plain.pt"):
            with pytest.raises(
                CheckpointError, match=f"{name}: expected .*; for weights of another program, give the fun"
            ):
                load(name)

    def test_a_users_own_network_needs_its_function(self, folder, own, module, images):
        path = write(folder / "own.safetensors", own, architecture="custom", classes="xyz")
        with pytest.raises(CheckpointError, match="got a custom one; name the"):
            load(path)
        loaded = load(f"{module}:Own", weights=path)
        assert torch.equal(loaded(images), own(images))
        assert loaded.checkpoint_header["classes"] == ["x", "y", "z"]


class TestFunctions:
    def test_a_class_with_arguments(self, module, images):
        for arguments in ({"width": 2, "classes": 7}, '{"width": 2, "classes": 7}'):
            model = load(f"{module}:Own", model_args=arguments)
            assert type(model).__name__ == "Own"
            assert model(images).shape == (16, 7)
            assert not model.training

    @pytest.mark.usefixtures("folder")
    def test_what_an_installed_package_has(self):
        assert load("torch.nn:Linear", model_args={"in_features": 3, "out_features": 2}).weight.shape == (2, 3)

    def test_a_function_that_imports_later(self, module):
        assert load(f"{module}:later", model_args={"width": 2}).head.weight.shape == (3, 72)

    def test_half_precision(self, module, images):
        model = load(f"{module}:half")
        assert isinstance(model, ModelAdapter)
        assert not model.training
        assert torch.equal(model(images), model.model(images.half()).float())

    def test_a_function_returned(self, module, images):
        assert torch.equal(load(f"{module}:returns_a_function")(images), images.flatten(1)[:, :4])

    def test_a_network_of_a_module_is_copied(self, module):
        model = load(f"{module}:instance")
        original = sys.modules[module].instance
        assert equal(model.state_dict(), original.state_dict())
        assert model is not original
        assert original.training
        assert not model.training

    @pytest.mark.parametrize(
        ("name", "arguments", "message"),
        [
            (
                "fails",
                None,
                r"model: expected a function that returns .*, got .*:fails, which raises ValueError: first$",
            ),
            ("number", None, r"model: expected .*, got .*:number, which returns an object of type int$"),
            ("returns_a_class", None, r"model: .*:returns_a_class, which returns the class Own$"),
            ("constant", None, r"model: .*:constant, an object of type int$"),
            ("instance", {"width": 3}, r"model: .*:instance, an object of type Own$"),
            (
                "Owm",
                None,
                r"model: expected the name of something in .*, got Owm, which is not there; did you mean Own\?",
            ),
            (
                "Own",
                {"depth": 3},
                r"model_args: expected the arguments of .*:Own, got {'depth': 3} .*; its .* \(width=4, cl",
            ),
            ("positional", None, r"model_args: .*missing a required argument: 'inputs'"),
            ("Own", "{width: 3}", r"model_args: expected a dictionary, or a JSON .*, got '{width: 3}'; it is no JSON"),
            ("Own", "[1]", r"model_args: expected a dictionary, or a JSON object, of keyword arguments, got '\[1\]'"),
            ("Own", "null", "model_args: expected a dictionary"),
            ("Own", 3, "model_args: expected a dictionary"),
            ("Own", {1: 2}, "model_args: expected a dictionary"),
        ],
    )
    def test_errors(self, name, arguments, message, module):
        with pytest.raises(ArgumentError, match=message) as caught:
            load(f"{module}:{name}", model_args=arguments)
        assert "\n" not in str(caught.value)

    @pytest.mark.usefixtures("folder")
    def test_arguments_without_a_function(self, network):
        for model in ("resnet20-cni-w", network):
            with pytest.raises(
                ArgumentError, match=r"model_args: expected none, unless the model is a package\.module:func"
            ):
                load(model, model_args={"width": 3})


class TestObjects:
    def test_a_network_stays_itself(self, network):
        network.train()
        assert load(network) is network
        assert load(network, device="cpu") is network
        assert network.training

    def test_normalised(self, network, images):
        model = load(network, normalize=(MEAN, STD))
        assert torch.equal(model(images), network(Normalize(MEAN, STD)(images)))
        assert model.model is network

    def test_probabilities(self, network, images):
        model = load(nn.Sequential(network, nn.Softmax(1)), outputs="probabilities")
        assert torch.equal(model(images).argmax(1), network(images).argmax(1))

    def test_a_callable(self, images):
        model = load(lambda inputs: inputs.flatten(1)[:, :4])
        assert torch.equal(model(images), images.flatten(1)[:, :4])

    def test_weights_go_into_a_copy(self, folder, own, images):
        other = randomised(type(own)().eval())
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        save_file(own.state_dict(), folder / "own.safetensors")
        loaded = load(other, weights="own.safetensors")
        assert loaded is not other
        assert torch.equal(loaded(images), own(images))
        assert equal(other.state_dict(), before)
        with pytest.raises(
            ArgumentError, match=r"weights: expected None for a callable that is no torch\.nn\.Module, got"
        ):
            load(lambda inputs: inputs, weights="own.safetensors")

    def test_moving_moves_a_copy(self, network):
        moved = load(network, device="meta")
        assert moved is not network
        assert moved[0].weight.device.type == "meta"
        assert network[0].weight.device.type == "cpu"
        assert load(lambda inputs: inputs, normalize=(MEAN, STD), device="meta").normalize.mean.device.type == "meta"


class TestWeights:
    @pytest.mark.parametrize(
        "kind", ["safetensors", "pt", "legacy", "state_dict", "model_state_dict", "model", "module."]
    )
    def test_every_kind_of_file(self, kind, folder, own, module):
        state, path = own.state_dict(), folder / f"weights.{kind}"
        if kind == "safetensors":
            save_file(state, path)
        elif kind == "module.":
            torch.save({"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
        else:
            content = state if kind in {"pt", "legacy"} else {"epoch": 3, kind: state, "best": 0.5}
            torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy")
        loaded = load(f"{module}:Own", weights=path)
        assert equal(loaded.state_dict(), state)
        assert loaded.checkpoint_header is None

    def test_a_checkpoint_with_noise(self, folder, own, module, images):
        noise = inject(own, weights={nn.Conv2d: CNI(rank=2)})
        randomised(own)
        path = write(folder / "own.safetensors", own, noise.to_json(), "custom", "xyz")
        loaded = load(f"{module}:Own", weights=str(path))
        assert len(noise_layers(loaded)) == 1
        assert equal(loaded.state_dict(), own.state_dict())
        with frozen(own, 2), frozen(loaded, 2):
            assert torch.equal(loaded(images), own(images))

    def test_names_that_begin_with_module(self, folder):
        wrapped = nn.ModuleDict({"module": nn.Linear(3, 2)})
        save_file(wrapped.state_dict(), folder / "wrapped.safetensors")
        assert equal(load(nn.Sequential(), weights=empty(folder)).state_dict(), {})
        target = nn.ModuleDict({"module": nn.Linear(3, 2)})
        target.forward = target["module"].forward
        assert equal(load(target, weights="wrapped.safetensors").state_dict(), wrapped.state_dict())

    def test_counters_of_batch_norms_may_be_missing(self, folder, own, module, images):
        state = {name: tensor for name, tensor in own.state_dict().items() if not name.endswith("num_batches_tracked")}
        save_file(state, folder / "old.safetensors")
        assert torch.equal(load(f"{module}:Own", weights="old.safetensors")(images), own(images))

    def test_other_weights_for_a_checkpoint(self, folder, resnet8):
        path = write(folder / "net.safetensors", resnet8)
        other = {name: tensor + 1 for name, tensor in resnet8.state_dict().items()}
        torch.save(other, folder / "other.pt")
        loaded = load(path, weights="other.pt")
        assert equal(loaded.state_dict(), other)
        assert loaded.checkpoint_header is None

    def test_misfits_are_named(self, folder, own, module):
        save_file(own.state_dict(), folder / "own.safetensors")
        with pytest.raises(
            CheckpointError, match=r"own\.safetensors: .* fit the network, got: other shapes: body\.0\.w"
        ):
            load(f"{module}:Own", model_args={"width": 5}, weights="own.safetensors")
        save_file({"a": torch.zeros(1)}, folder / "a.safetensors")
        with pytest.raises(CheckpointError, match=r"missing: body\.0\.weight, .* and 5 more; unexpected: a$"):
            load(f"{module}:Own", weights="a.safetensors")

    def test_nothing_is_unpickled(self, folder, own, module):
        for name, content in {
            "touch.pt": {"state_dict": own.state_dict(), "extra": Touch(folder / "x")},
            "net.pt": own,
        }.items():
            for new in (True, False):
                torch.save(content, folder / name, _use_new_zipfile_serialization=new)
                with pytest.raises(
                    CheckpointError, match=rf"{name}: expected a file of tensors, got one that runs code"
                ) as e:
                    load(f"{module}:Own", weights=name)
                assert "\n" not in str(e.value)
                assert "(getattr)" in str(e.value) or "Own)" in str(e.value)
        assert not (folder / "x").exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "weights: expected a file, found none at broken$"),
            (
                b"",
                "broken: expected a safetensors file or a torch file of a state dict, got a damaged file or",
            ),
            (b"hello world", "got a damaged file or another format"),
            (pickle.dumps([1, 2], protocol=4), "got a damaged file or another format"),
            (b"PK\x03\x04" + b"0" * 100, "got a damaged file or another format"),
            (
                b"\xff\x00\x00\x00\x00\x00\x00\x00{" + b"x" * 50,
                "broken: expected a safetensors file, got a damaged one",
            ),
        ],
    )
    def test_damaged_files(self, content, message, folder, module):
        if content is not None:
            (folder / "broken").write_bytes(content)
        with pytest.raises(CheckpointError, match=message) as caught:
            load(f"{module}:Own", weights="broken")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                {"epoch": 1, "net": {"a": torch.zeros(1)}},
                "expected a state dict of tensors, got a dict with the keys epoch, net$",
            ),
            ([torch.zeros(1)], "got a list with no keys$"),
            (torch.zeros(1), "got a Tensor with no keys$"),
        ],
    )
    def test_files_without_a_state_dict(self, content, message, folder, module):
        torch.save(content, folder / "other.pt")
        with pytest.raises(CheckpointError, match=message):
            load(f"{module}:Own", weights="other.pt")


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def empty(folder):
    save_file({}, folder / "empty.safetensors")
    return folder / "empty.safetensors"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (3, r"got 3$"),
        (None, r"got None$"),
        (["a"], r"got \['a'\]$"),
        (nn.Linear, r"got the class Linear; create an object: Linear\(\.\.\.\)$"),
        ("resnet20-cni", r"got 'resnet20-cni'; did you mean resnet20-cni-w\?$"),
        ("nets/mine.safetensors", r"got 'nets/mine\.safetensors'; there is no such file$"),
        (Path("mine.pt"), r"got 'mine\.pt'; there is no such file$"),
        ("", r"got ''; there is no such file$"),
        (".", r"got '\.'; there is no such file$"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_errors_list_what_is_possible(model, message):
    possible = (
        r"model: expected a bundled name \(.*resnet20-cni-w.*\), the path of a checkpoint, zoo/NAME, package\.mod"
    )
    with pytest.raises(ArgumentError, match=possible) as caught:
        load(model)
    with pytest.raises(ArgumentError, match=message):
        raise caught.value


@pytest.mark.usefixtures("folder")
def test_other_errors(network):
    with pytest.raises(
        ArgumentError, match=r"model: expected a module .*, got users_none:net, but there is no module u"
    ):
        load("users_none:net")
    with pytest.raises(
        ArgumentError, match=r"of the form package.module:name, got 'nets/a.py:build'; write nets\.a:build"
    ):
        load("nets/a.py:build")
    with pytest.raises(ArgumentError, match="outputs: expected one of logits, probabilities, got 'log'"):
        load(network, outputs="log")
    for device in ("gpu", 3.5):
        with pytest.raises(ArgumentError, match="device: expected a device of torch, such as cpu or cuda:0, got"):
            load(network, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a computer without a GPU")
@pytest.mark.usefixtures("folder")
def test_a_device_that_is_not_there(network):
    for model in (network, "resnet20-cni-w", lambda inputs: inputs):
        with pytest.raises(ArgumentError, match="device: expected a device that this computer has, got cuda; "):
            load(model, normalize=None if isinstance(model, str) else (MEAN, STD), device="cuda")


def test_arguments_of_the_command_line(module):
    """Everything may be text there."""
    model = load(f"{module}:half", model_args=json.dumps({"classes": 6}), outputs="logits", device="cpu")
    assert model.model.head.weight.shape[0] == 6
