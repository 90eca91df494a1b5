"""Checkpoints: what comes back is what went in, and what is damaged or foreign is refused without running it."""

import json
import os
import pickle
import resource
import signal
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from quick import first
from smoothed import checkpoint
from smoothed.errors import CheckpointError, OutputError
from smoothed.injection import CNI, PNI, PRESETS, frozen, inject, inject_preset, noise_layers, noiseless
from smoothed.models import ARCHITECTURES, CIFAR100_MEAN, CIFAR100_STD, ResNet, WideResNet

CLASSES = tuple("abcde")


@pytest.fixture(autouse=True)
def small_architectures(monkeypatch):
    """The smallest network of each family, which the tests save and load by name."""
    monkeypatch.setitem(ARCHITECTURES, "resnet8", partial(ResNet, 8))
    monkeypatch.setitem(ARCHITECTURES, "wide_resnet10_1", partial(WideResNet, 10, 1))


def trained(architecture="resnet8", injection="none"):
    """A network whose every parameter and buffer is another than at the start, and its header."""
    model = checkpoint.build(architecture, num_classes=len(CLASSES), mean=CIFAR100_MEAN, std=CIFAR100_STD)
    noise = inject_preset(model, injection)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not name.startswith("normalize"):
                tensor.mul_(1 + 0.2 * torch.rand(tensor.shape, generator=generator))
    return model.eval(), checkpoint.describe(architecture, model, noise.to_json(), CLASSES, note="a test")


def write_header(path, **changes):
    model, header = trained()
    return checkpoint.save(path, model, {**header, **changes})


def users_network():
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("injection", PRESETS)
@pytest.mark.parametrize("architecture", first(1, ["resnet8", "wide_resnet10_1"]))
def test_a_network_comes_back(architecture, injection, images, tmp_path):
    model, header = trained(architecture, injection)
    loaded = checkpoint.load(checkpoint.save(tmp_path / "model.safetensors", model, header))

    before, after = model.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module.training for module in loaded.modules())
    assert len(noise_layers(loaded)) == len(noise_layers(model))
    with noiseless(model), noiseless(loaded):
        expected = model(images)
        assert torch.equal(loaded(images), expected)
    with frozen(model, 3), frozen(loaded, 3):
        assert torch.equal(loaded(images), model(images))
        assert torch.equal(loaded(images), expected) == (injection == "none")


def test_the_smallest_published_network_comes_back(images, tmp_path):
    model, header = trained("resnet20", "cni-w")
    loaded = checkpoint.load(checkpoint.save(tmp_path / "model.safetensors", model, header))
    with frozen(model), frozen(loaded):
        assert torch.equal(loaded(images), model(images))


def test_saving_leaves_the_network_alone(tmp_path):
    model, header = trained(injection="cni-w")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    checkpoint.save(tmp_path / "model.safetensors", model.train(), header)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_file_is_plain_safetensors(tmp_path):
    model, header = trained()
    tensors = load_file(checkpoint.save(tmp_path / "model.safetensors", model, header))
    assert set(tensors) == set(model.state_dict())
    assert torch.equal(tensors["linear.weight"], model.linear.weight)


def test_the_header_says_what_the_network_is(tmp_path):
    model, header = trained(injection="pni-w")
    found = checkpoint.read_header(checkpoint.save(tmp_path / "model.safetensors", model, header))
    assert found["architecture"] == "resnet8"
    assert found["classes"] == list(CLASSES)
    assert found["mean"] == list(CIFAR100_MEAN)
    assert found["std"] == list(CIFAR100_STD)
    assert found["note"] == "a test"
    assert found["injection"][0]["law"] == "PNI"
    assert found["format_version"] == 1


def test_tensors_that_share_memory_or_are_no_rows_come_back(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    tensors = {"base": base, "transposed": base.T, "row": base[1], "scalar": torch.tensor(2.5), "none": base[:0]}
    header = {"format_version": 1, "words": ["\N{SNOWMAN}"]}
    path = checkpoint.write_tensors(tmp_path / "state.safetensors", tensors, header)
    found, found_header = checkpoint.read_tensors(path)
    assert found_header == header
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_load_into_your_own_network(images, tmp_path):
    model = users_network()
    noise = inject(model, weights={nn.Conv2d: CNI(rank=2), nn.Linear: PNI("element")}, activations=PNI(site="output"))
    with torch.no_grad():
        model[0].activation_noise.alpha.fill_(0.7)
    path = checkpoint.save(tmp_path / "own.safetensors", model, {"injection": noise.to_json(), "mine": 1})

    other = users_network()
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    header = checkpoint.load_into(other, path)
    assert header["mine"] == 1
    with frozen(model), frozen(other):
        assert torch.equal(other(images), model(images))


def test_load_into_without_an_injection(images, tmp_path):
    model = users_network()
    path = checkpoint.save(tmp_path / "own.safetensors", model, {})
    other = users_network()
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    checkpoint.load_into(other, path)
    assert torch.equal(other(images), model(images))


def test_load_finds_no_architecture_in_your_own_networks_file(tmp_path):
    path = checkpoint.save(tmp_path / "own.safetensors", users_network(), {})
    with pytest.raises(CheckpointError, match="expected a header that describes a network, got 'architecture'"):
        checkpoint.load(path)


def test_update_header_keeps_the_weights(images, tmp_path):
    model, header = trained(injection="pni-a-a")
    path = checkpoint.save(tmp_path / "model.safetensors", model, header)
    checkpoint.update_header(path, note="another", accuracy=0.5)
    assert checkpoint.read_header(path) == {**header, "note": "another", "accuracy": 0.5}
    loaded = checkpoint.load(path)
    with frozen(model), frozen(loaded):
        assert torch.equal(loaded(images), model(images))


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"model: expected a checkpoint file or a bundled name .*, got .*none.st"):
        checkpoint.load(tmp_path / "none.st")
    with pytest.raises(CheckpointError, match="expected a checkpoint, found no such file"):
        checkpoint.load_into(users_network(), tmp_path / "none.st")


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="expected a checkpoint file"):
        checkpoint.load(tmp_path)


def test_a_truncated_file(tmp_path):
    content = write_header(tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    ends = {*range(0, 100, 7), *range(100, len(content), len(content) // 40), len(content) - 1}
    for end in sorted(ends):
        path.write_bytes(content[:end])
        with pytest.raises(
            CheckpointError, match="expected a safetensors file, got a truncated file or another format"
        ):
            checkpoint.load(path)


def test_another_programs_safetensors(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "bare.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "tagged.safetensors", {"format": "pt"})
    for name in ("bare", "tagged"):
        with pytest.raises(CheckpointError, match="got a safetensors file of another program"):
            checkpoint.load(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("dump", [lambda value, file: file.write(pickle.dumps(value)), torch.save])
def test_a_pickle_is_refused_and_not_run(dump, tmp_path):
    path, trace = tmp_path / "model.pt", tmp_path / "ran"
    with path.open("wb") as file:
        dump({"weight": Touch(trace)}, file)
    for read in (checkpoint.load, checkpoint.read_header, checkpoint.read_tensors):
        with pytest.raises(CheckpointError, match="got a truncated file or another format"):
            read(path)
    with pytest.raises(CheckpointError, match="got a truncated file or another format"):
        checkpoint.load_into(users_network(), path)
    assert not trace.exists()


def test_a_header_that_is_no_json(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path, {"format": "smoothed-checkpoint", "header": "{"})
    with pytest.raises(CheckpointError, match="expected a JSON header, got a damaged one"):
        checkpoint.load(path)


@pytest.mark.parametrize("header", [{"format_version": 2}, {}, [], None])
def test_another_format_version(header, tmp_path):
    path = tmp_path / "model.safetensors"
    metadata = {"format": "smoothed-checkpoint", "header": json.dumps(header)}
    save_file({"weight": torch.zeros(2)}, path, metadata)
    with pytest.raises(CheckpointError, match=r"expected format version 1, got (2|None); update smoothed"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "resnet9"},
        {"architecture": ["resnet8"]},
        {"architecture": None},
        {"classes": 5},
        {"mean": None},
        {"mean": "0.5"},
        {"mean": ["a", "b", "c"]},
        {"std": [[1, 2], [3]]},
    ],
)
def test_a_header_that_describes_no_network(changes, tmp_path):
    path = write_header(tmp_path / "model.safetensors", **changes)
    with pytest.raises(CheckpointError, match="expected a header that describes a network, got"):
        checkpoint.load(path)


@pytest.mark.parametrize("injection", [None, 5, "cni-w", [5], {"layer": "conv1"}])
def test_a_header_whose_injection_is_no_list_of_changes(injection, tmp_path):
    path = write_header(tmp_path / "model.safetensors", injection=injection)
    with pytest.raises(CheckpointError, match="expected a list of JSON objects as the header's injection"):
        checkpoint.load(path)
    with pytest.raises(CheckpointError, match="expected a list of JSON objects as the header's injection"):
        checkpoint.load_into(users_network(), path)


@pytest.mark.parametrize(
    "change",
    [
        {"law": "QNI"},
        {"layer": "conv7"},
        {"layer": "bn1"},
        {"target": "bias"},
        {"strength": 2},
        {"site": "middle"},
    ],
)
def test_a_law_or_a_layer_that_is_unknown(change, tmp_path):
    known = {"layer": "conv1", "target": "weight", "law": "CNI", "rank": 1}
    path = write_header(tmp_path / "model.safetensors", injection=[{**known, **change}])
    with pytest.raises(CheckpointError, match=r"injection: expected noise that fits the network, got \{'layer'"):
        checkpoint.load(path)


def is_as_it_was(path, content):
    return path.read_bytes() == content and list(path.parent.iterdir()) == [path]


def test_a_save_that_the_system_cuts_short_leaves_the_old_file(tmp_path):
    path = write_header(tmp_path / "model.safetensors")
    content = path.read_bytes()
    model, header = trained()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, limits[1]))  # as a full disk would
    try:
        with pytest.raises(OutputError, match=r"model.safetensors: could not be written \(.*File too large"):
            checkpoint.save(path, model, header)
        with pytest.raises(OutputError, match="File too large"):
            checkpoint.update_header(path, note="new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert is_as_it_was(path, content)


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_header(tmp_path / "model.safetensors")
    content = path.read_bytes()

    def interrupted(tensors, partial, metadata):
        save_file(tensors, partial, metadata)
        os.truncate(partial, 1000)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_header(path)
    assert is_as_it_was(path, content)


def test_a_killed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_header(tmp_path / "model.safetensors")
    content = path.read_bytes()
    tensors, header = checkpoint.read_tensors(path)

    def killed(tensors, partial, metadata):
        del tensors, metadata
        partial.write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(checkpoint, "save_file", killed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads; the child only writes and dies
        child = os.fork()
    if child == 0:
        try:
            checkpoint.write_tensors(path, {"step": tensors["bn1.num_batches_tracked"]}, header)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert path.read_bytes() == content
    checkpoint.load(path)


def test_an_unwritable_place():
    model, header = trained()
    with pytest.raises(OutputError, match="could not be written"):
        checkpoint.save("/proc/model.safetensors", model, header)


def test_bundled_checkpoints_load_by_name(images):
    for name, path in checkpoint.bundled().items():
        assert checkpoint.locate(name) == path
        assert checkpoint.load(name)(images).shape == (len(images), len(checkpoint.read_header(path)["classes"]))
