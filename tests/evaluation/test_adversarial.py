"""Adversarial images of a set in a file, against an attack whose effect is known."""

import pytest
import torch

import known
from smoothed import Gaussian, Smoothed
from smoothed.checkpoint import write_tensors
from smoothed.errors import CheckpointError
from smoothed.evaluation.adversarial import attack_images, load_adversarial, save_adversarial

VALUES = range(128, 228)


def darker(_model, inputs, _labels, generator=None):  # noqa: ARG001 - an attack
    return inputs - 0.101


def test_images_and_accuracies_are_the_known_ones(tmp_path):
    data = known.pixels(*VALUES)
    made = attack_images(Smoothed(known.Threshold(), num_samples=3), data, darker)
    assert torch.equal(made.images, data.images / 255 - 0.101)
    assert float(made.clean.shares.mean()) == 1
    assert float(made.attacked.shares.mean()) == sum(value / 255 - 0.101 > 0.5 for value in VALUES) / len(VALUES)
    path = save_adversarial(tmp_path / "made.safetensors", made, {"attack": "darker", "eps": 0.1})
    tensors, record = load_adversarial(path)
    assert torch.equal(tensors["images"], made.images)
    assert tensors["images"].dtype == torch.float32
    assert torch.equal(tensors["labels"], data.labels)
    assert tensors["index"].tolist() == list(range(100))
    assert (record["attack"], record["eps"]) == ("darker", 0.1)


def test_the_attack_sees_fresh_draws_and_all_is_of_the_seed():
    def noisy(model, inputs, _labels, generator=None):
        assert not torch.equal(model(inputs), model(inputs))
        return (inputs + 0.1 * torch.rand(inputs.shape, generator=generator)).clamp(0, 1)

    smoothed = Smoothed(known.Threshold(), Gaussian(0.3), num_samples=1)
    first, again, other = (attack_images(smoothed, known.pixels(*VALUES), noisy, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.attacked.right, again.attacked.right)
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.clean.right, other.clean.right)


def test_another_kind_of_file_is_refused(tmp_path):
    path = write_tensors(tmp_path / "weights.safetensors", {"weight": torch.zeros(1)}, {"format_version": 1})
    with pytest.raises(CheckpointError, match="expected adversarial images, got a file of another kind"):
        load_adversarial(path)
