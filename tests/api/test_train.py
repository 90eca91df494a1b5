"""One call trains a network of any kind on data of any kind, and leaves both as they were."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from refusing import check_refusals
from smoothed.api.load import load
from smoothed.api.train import train
from smoothed.checkpoint import describe, load_into, read_tensors, save
from smoothed.data.adapt import as_images
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.evaluation.correctness import single_draw_accuracy
from smoothed.injection import PNI, frozen, inject, injected_noise, noise_layers
from smoothed.models import build
from smoothed.training.config import TrainingConfig

QUICK = {"epochs": 1, "batch_size": 20, "validation_attack_images": 4, "precision": "float32"}


def own_network(channels=3, size=8, classes=3, dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(dropout), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(6 * (size - 2) ** 2, classes))


def pair(count=66, channels=3, size=8, classes=3, dtype=torch.uint8):
    """Images whose class shows: one quarter of each is brighter."""
    generator = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % classes
    images = torch.randint(0, 120, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    half = size // 2
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, half * (label // 2) :, half * (label % 2) :][:, :half, :half] += 130
    return (images if dtype == torch.uint8 else (images.double() / 255).to(dtype)), labels


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "size", "classes", "dtype"),
    [(1, 12, 2, torch.float32), (3, 8, 3, torch.uint8), (4, 9, 4, torch.float64), (1, 8, 3, torch.bfloat16)],
)
def test_it_learns_on_images_of_any_kind(channels, size, classes, dtype):
    network = own_network(channels, size, classes)
    before = copy.deepcopy(network.state_dict())
    images, labels = pair(160, channels=channels, size=size, classes=classes, dtype=dtype)
    kept = images.clone(), labels.clone()
    settings = {**QUICK, "epochs": 12, "eps": 0.01, "lr": 0.05, "augmentation": "none", "injection_strength": 0.1}
    trained = train(network, (images, labels), recipe="nfgsm", injection="cni-w", **settings)
    assert same(network.state_dict(), before)
    assert network.training
    assert torch.equal(images, kept[0])
    assert torch.equal(labels, kept[1])
    assert (trained.finished, trained.folder) == (True, None)
    assert [line["epoch"] for line in trained.metrics] == list(range(1, 13))
    assert not any(module.training for module in trained.model.modules())
    assert len(noise_layers(trained.model)) == 2
    fresh = as_images(pair(98, channels, size, classes, dtype))
    assert single_draw_accuracy(trained.model, fresh) > 0.8


def test_the_result_is_the_best_epoch(tmp_path):
    network, data = own_network(), pair()
    trained = train(network, data, recipe="pni-w", out=tmp_path, seed=4, **{**QUICK, "epochs": 3, "attack_steps": 1})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert trained.metrics == lines
    best = max(lines, key=lambda line: line["validation_robust"])  # the first of several
    assert trained.best == {name: best[name] for name in ("epoch", "validation_clean", "validation_robust")}
    assert same(trained.model.state_dict(), read_tensors(tmp_path / "best.safetensors")[0])
    other = copy.deepcopy(network)
    load_into(other, tmp_path / "best.safetensors")
    inputs = data[0][:4].float() / 255
    with frozen(other.eval()), frozen(trained.model):
        assert torch.equal(other(inputs), trained.model(inputs))
    assert (trained.folder, trained.config.seed, trained.config.data) == (tmp_path, 4, "custom")
    clean, robust = trained.best["validation_clean"], trained.best["validation_robust"]
    assert str(trained).endswith(f"accuracy of one draw {100 * clean:.2f} % clean, {100 * robust:.2f} % under PGD-7")
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["command"].startswith("smoothed.train(Sequential, tuple, recipe='pni-w', seed=4")
    assert trained.model.checkpoint_header["classes"] == ["0", "1", "2"]


def test_runs_are_a_function_of_the_seed_and_can_be_stopped(tmp_path):
    """Also with dropout, which draws from torch's global generator."""
    settings = {"recipe": "fgsm-rs", **QUICK, "epochs": 2, "injection": "pni-w"}
    state = torch.random.get_rng_state()
    first = train(own_network(dropout=0.3), pair(), **settings)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    part = train(own_network(dropout=0.3), pair(), out=tmp_path, time_limit=0.0, **settings)
    assert (part.finished, part.best, part.metrics) == (False, None, [])
    groups = read_tensors(next((tmp_path / "state").iterdir()) / "weights.safetensors")[0]
    assert same(part.model.state_dict(), groups)
    assert str(part).startswith("training stopped in epoch 1 of 2 after ")
    whole = train(own_network(dropout=0.3), pair(), out=tmp_path, **settings)
    assert whole.finished
    assert same(first.model.state_dict(), whole.model.state_dict())
    other = train(own_network(dropout=0.3), pair(), seed=1, **settings)
    assert not same(first.model.state_dict(), other.model.state_dict())
    stopped = train(own_network(), pair(), time_limit=0.0, average=0.9, **settings)
    assert stopped.model.training is False


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = own_network()

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.inner(pixel_values), loss=None)


def test_outputs_that_are_objects():
    plain = train(own_network(), pair(), recipe="trades-6", **QUICK, attack_steps=1, input_sigma=0.02)
    wrapped = train(Wrapped(), pair(), recipe="trades-6", **QUICK, attack_steps=1, input_sigma=0.02)
    assert wrapped.model.state_dict().keys() == {f"inner.{name}" for name in plain.model.state_dict()}
    for name, tensor in plain.model.state_dict().items():
        assert torch.allclose(tensor, wrapped.model.state_dict()[f"inner.{name}"], atol=1e-5), name


def test_ones_own_attack_is_used():
    calls = []

    def darker(model, inputs, labels):
        del model
        calls.append((tuple(inputs.shape), labels.dtype))
        return inputs * 0.5

    trained = train(own_network(), pair(), recipe="at", attack=darker, **QUICK)
    assert calls == [((20, 3, 8, 8), torch.int64)] * 3  # 60 of 66 images; six are held out
    assert trained.config.attack == "custom"
    named = train(own_network(), pair(), recipe="at", attack="fgsm", **QUICK)
    assert named.config.attack == "fgsm"


@pytest.mark.parametrize("keys", [None, ("pixels", "y")])
def test_data_of_other_kinds(keys):
    images, labels = pair(dtype=torch.float32)
    expected = train(own_network(), (images, labels), recipe="nfgsm", **QUICK, augmentation="none")
    data = TensorDataset(images, labels)
    if keys is not None:
        data = [{"pixels": image, "y": int(label)} for image, label in data]
    else:
        data = DataLoader(data, batch_size=7)
    found = train(own_network(), data, recipe="nfgsm", **QUICK, augmentation="none", keys=keys)
    assert same(found.model.state_dict(), expected.model.state_dict())


def test_validation_data_decide(tmp_path):
    train(own_network(), pair(60), validation=pair(9), recipe="nfgsm", out=tmp_path, **QUICK)
    assert json.loads((tmp_path / "card.json").read_text())["epochs"][0]["validation_clean"] * 9 % 1 < 1e-9


@pytest.mark.slow
def test_architectures_and_checkpoints_by_name(tmp_path):
    data = pair(size=16)
    first = train("resnet20", data, recipe="nfgsm", **QUICK, seed=3)
    assert first.config.architecture == "resnet20"
    assert first.model.normalize.mean.mean().item() == pytest.approx(data[0].double().mean().item() / 255, abs=0.01)
    with torch.random.fork_rng():
        model = build("resnet20", num_classes=5)
    path = save(tmp_path / "five.safetensors", model, describe("resnet20", model, [], tuple("abcde")))
    tuned = train(path, data, recipe="nfgsm", **QUICK, lr=0.0)
    assert tuned.config.start == str(path)
    assert tuned.notes[0].startswith(f"the last layer of {path} (5 classes) is replaced by a new one for 3 (0, 1, 2)")
    weights = tuned.model.state_dict()
    assert all(torch.equal(weights[name], p) for name, p in model.named_parameters() if not name.startswith("linear"))
    message = r"resnet20-cni-w already has CNI noise; recipe nfgsm expects none\. Pass --injection keep"
    with pytest.raises(CheckpointError, match=message):
        train("resnet20-cni-w", data, recipe="nfgsm", **QUICK)


def test_a_network_that_has_noise():
    network = own_network()
    inject(network, weights=PNI(initial=0.1))
    settings = {"recipe": "nfgsm", **QUICK, "lr": 0.0}
    message = r'already has PNI noise; recipe nfgsm expects none\. Pass injection="keep"'
    with pytest.raises(CheckpointError, match=message):
        train(network, pair(), **settings)
    kept = train(network, pair(), **settings, injection="keep").model
    assert same(dict(kept.named_parameters()), dict(network.named_parameters()))
    assert injected_noise(kept).changes == injected_noise(network).changes
    removed = train(network, pair(), **settings, injection="none").model
    assert not noise_layers(removed)
    assert torch.equal(removed[0].weight, network[0].parametrizations.weight.original)
    assert len(noise_layers(network)) == 2


def test_a_bundled_network_is_ones_own_once_it_is_loaded():
    network = load("resnet20-cni-w")
    trained = train(network, pair(30, size=8), recipe="nfgsm", **QUICK, lr=0.0, injection="keep").model
    assert same(dict(trained.named_parameters()), dict(network.named_parameters()))
    assert network.loaded_name == "resnet20-cni-w"
    assert not hasattr(trained, "loaded_name")


def test_progress_is_told():
    seen = []
    train(own_network(), pair(), recipe="nfgsm", **QUICK, on_progress=lambda p: seen.append((p.step, p.total_steps)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def unchanged(model, inputs, labels):
    del model, labels
    return inputs


def test_refusals(tmp_path, monkeypatch):
    network, data = own_network(), pair()
    save(tmp_path / "own.safetensors", network, describe("custom", network, [], ("a", "b", "c")))
    networks = [
        ("resnet21", "expected a torch.nn.Module, one of resnet20, .*, got 'resnet21'"),
        (3, "expected a torch.nn.Module.*, got an object of type int"),
        (unchanged, "expected a torch.nn.Module.*, got an object of type function"),
        (
            tmp_path / "own.safetensors",
            "expected a checkpoint of an architecture of this package, .* custom one; build",
        ),
        (nn.Flatten(), "expected parameters that require gradients, got none"),
        (own_network().requires_grad_(False), r"got none; call network.requires_grad_\(\)"),
        (
            own_network(classes=2),
            "expected at least 3 outputs, one for each class of .*, got 2; give the network a last",
        ),
        (own_network(size=9), r"expected a network for images of shape \(3, 8, 8\), got RuntimeError: mat1 and"),
    ]
    cases = [
        *(({"network": refused}, f"network: .*{message}") for refused, message in networks),
        ({"network": own_network(channels=1)}, "inputs: expected the number of channels that the model accepts"),
        (
            {"network": "resnet20-cni-w", "data": pair(channels=1)},
            "data: expected images of 3 channels for resnet20-cni-w, got 1",
        ),
        ({"data": data[0]}, "data: expected .*pass labels too"),
        ({"recipe": "ad"}, "recipe: expected one of natural"),
        ({"recipe": "natural", "attack": unchanged}, "attack: expected a recipe that trains on attacked images, got"),
        ({"attack": "pdg"}, "attack: expected one of .* did you mean pgd"),
        ({"attack": 3}, "attack: expected a function"),
        ({"epoch": 3}, "^epoch: expected an argument of train or a setting of TrainingConfig, .*did you mean epochs"),
        (
            {"architecture": "resnet20"},
            "architecture: expected none beside a network, which settles it, got 'resnet20'",
        ),
        ({"eps": 8}, "eps: expected a radius of at most 1"),
        ({"injection": "cniw"}, "injection: expected one of"),
        ({"start": "resnet20-cni-w"}, "start: expected none with a network of your own"),
        ({"batch_size": 2, "accumulation": 3}, "batch_size: expected at least 3"),
    ]
    usual = {"network": network, "data": data, "recipe": "at", "out": tmp_path / "run"}
    check_refusals(lambda **changes: train(**{**usual, **changes}), cases)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ArgumentError, match="out: expected a folder that all processes share, got none with several"):
        train(network, data)


def test_a_configuration_is_a_recipe():
    config = TrainingConfig(injection="none", attack="fgsm", **QUICK)
    assert train(own_network(), pair(), recipe=config).config == TrainingConfig(
        injection="none", attack="fgsm", architecture="custom", data="custom", **QUICK
    )
