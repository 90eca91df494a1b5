"""A network of one's own is trained as those of this package are, whatever it is made of."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from smoothed.checkpoint import load, load_into, read_header, read_tensors
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.evaluation.correctness import single_draw_accuracy
from smoothed.injection import frozen, noise_layers, noiseless
from smoothed.training.config import TrainingConfig
from smoothed.training.loop import train

sys.path.insert(0, str(Path(__file__).parent))
from tiny_run import tiny_set
from tiny_runs import SETTINGS, tiny_network


def run(folder, network, *, compiled=False, **settings):
    config = TrainingConfig(**{**SETTINGS, **settings})
    return train(config, tiny_set(48, 0), tiny_set(16, 1), folder, network=network, compiled=compiled)


def last(folder):
    return read_tensors(folder / "last.safetensors")[0]


@pytest.mark.slow
def test_it_learns_and_its_checkpoint_is_loaded_into_another_like_it(tmp_path):
    network = tiny_network()
    settings = {"injection": "cni-w", "injection_strength": 0.1, "attack": "fgsm", "eps": 0.02, "lr": 0.01}
    assert run(tmp_path, network, epochs=12, average=0.5, **settings).fallback is None
    path = tmp_path / "last.safetensors"
    other = tiny_network()
    header = load_into(other, path)
    assert header == read_header(path)
    assert (header["architecture"], header["classes"]) == ("custom", ["red", "green", "blue"])
    assert len(noise_layers(other)) == 3
    assert single_draw_accuracy(other, tiny_set(96, 2)) > 0.8  # chance is 1/3
    with pytest.raises(CheckpointError, match="got a custom one; name the function that builds it"):
        load(path)


def test_it_is_changed_in_place(tmp_path):
    network, other = tiny_network(), tiny_network()
    run(tmp_path, network)
    load_into(other, tmp_path / "last.safetensors")
    theirs = other.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in network.state_dict().items())
    inputs = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for switched in (noiseless, frozen):
        with switched(network), switched(other):  # in another memory format, so to rounding
            assert_close(network(inputs), other(inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "network", "got"),
    [("resnet20", tiny_network(), "resnet20 and a network"), ("custom", None, "custom and no network")],
)
def test_a_network_goes_with_the_architecture_custom_alone(tmp_path, architecture, network, got):
    message = f"network: expected a network if, and only if, the architecture is custom, got {got}"
    with pytest.raises(ArgumentError, match=message):
        run(tmp_path, network, architecture=architecture)


class Untraceable(nn.Module):
    """The tiny network behind a branch on its inputs' values, which no tracer can follow."""

    def __init__(self):
        super().__init__()
        self.layers = tiny_network()

    def forward(self, inputs):
        return self.layers(inputs) if inputs.sum() >= 0 else self.layers(-inputs)


def test_what_can_not_be_traced_is_trained_all_the_same(tmp_path):
    outcome = run(tmp_path / "as-it-is", Untraceable())
    assert outcome.finished
    assert outcome.fallback.startswith(
        "attacks use the network without fusing (model: expected a network that torch.fx"
    )
    assert "\n" not in outcome.fallback
    run(tmp_path / "traced", tiny_network())
    plain, traced = last(tmp_path / "as-it-is"), last(tmp_path / "traced")
    assert plain.keys() == {f"layers.{name}" for name in traced}
    assert run(tmp_path / "noiseless", Untraceable(), injection="none").finished


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiling_changes_weights_by_rounding_alone(tmp_path):
    outcome = run(tmp_path / "compiled", tiny_network(), compiled=True)
    assert (outcome.finished, outcome.fallback) == (True, None)
    run(tmp_path / "plain", tiny_network())
    plain, compiled = last(tmp_path / "plain"), last(tmp_path / "compiled")
    assert max(float((plain[name] - compiled[name]).abs().max()) for name in plain) < 1e-5
