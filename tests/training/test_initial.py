"""Where a run starts: a new network, or a checkpoint."""

import pytest
import torch

from smoothed.checkpoint import describe, read_tensors, save
from smoothed.errors import CheckpointError
from smoothed.injection import frozen, inject_preset, noise_layers
from smoothed.models import build
from smoothed.training.config import TrainingConfig
from smoothed.training.initial import initial_network

CLASSES = ("a", "b", "c")


def checkpoint(path, injection, classes=CLASSES):
    with torch.random.fork_rng():
        model = build("resnet20", num_classes=len(classes))
    changes = inject_preset(model, injection).to_json()
    for layer in noise_layers(model):
        for parameter in layer.parameters():
            torch.nn.init.constant_(parameter, 0.125)
    return str(save(path, model, describe("resnet20", model, changes, classes, training={"seconds": 1})))


def test_a_new_network_follows_its_seed_alone():
    first, second, other = (initial_network(TrainingConfig(seed=seed), CLASSES)[0] for seed in (1, 1, 2))
    assert torch.equal(first.linear.bias, second.linear.bias)
    assert not torch.equal(first.linear.bias, other.linear.bias)


def test_fine_tuning_keeps_weights_and_learned_noise(tmp_path):
    path = checkpoint(tmp_path / "noisy.safetensors", "cni-w")
    model, changes, parent = initial_network(TrainingConfig(start=path), CLASSES)
    saved, _ = read_tensors(path)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    assert len(changes) == 22
    assert parent == {"seconds": 1}


def test_a_network_without_noise_gets_some(tmp_path):
    path = checkpoint(tmp_path / "plain.safetensors", "none")
    model, changes, _ = initial_network(TrainingConfig(start=path, injection="pni-w-layer"), CLASSES)
    saved, _ = read_tensors(path)
    assert torch.equal(model.conv1.parametrizations.weight.original, saved["conv1.weight"])
    assert len(changes) == len(noise_layers(model)) == 22


def test_a_checkpoint_that_does_not_fit(tmp_path):
    path = checkpoint(tmp_path / "noisy.safetensors", "cni-w")
    with pytest.raises(CheckpointError, match="expected a network with pni-w or without noise, got another"):
        initial_network(TrainingConfig(start=path, injection="pni-w"), CLASSES)
    layer_wise = checkpoint(tmp_path / "layer.safetensors", "pni-w-layer")
    with pytest.raises(CheckpointError, match="expected a network with pni-w or without noise, got another"):
        initial_network(TrainingConfig(start=layer_wise, injection="pni-w"), CLASSES)
    with pytest.raises(CheckpointError, match="expected architecture resnet32, got resnet20"):
        initial_network(TrainingConfig(start=path, architecture="resnet32"), CLASSES)
    with pytest.raises(CheckpointError, match="expected classes"):
        initial_network(TrainingConfig(start=path), ("x", "y", "z"))


@pytest.mark.parametrize("injection", ["cni-w", "pni-w-layer"])
def test_fine_tuning_can_start_from_weaker_noise(tmp_path, injection):
    """Scaling by a half halves the noise of a draw, exactly: the law is linear in its normals."""
    path = checkpoint(tmp_path / "noisy.safetensors", injection)
    noises = []
    for strength in (1.0, 0.5):
        model, _, _ = initial_network(
            TrainingConfig(start=path, injection=injection, injection_strength=strength), CLASSES
        )
        with frozen(model):
            layer = model.layer1[0].conv1
            noises.append((layer.weight - layer.parametrizations.weight.original).detach())
    assert noises[0].std() > 0.01
    assert torch.allclose(noises[1], noises[0] / 2, atol=1e-6)
