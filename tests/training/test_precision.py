"""The precision of a run: networks whose weight gradients would be wrong in bf16 on a CPU train in float32."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from smoothed import ArgumentError
from smoothed.training.config import TrainingConfig
from smoothed.training.loop import train
from smoothed.training.precision import training_precision
from smoothed.utils import devices


class Deep(nn.Module):
    """Three convolutions of stride 2 on images of 4 x 4: the last one has a stride of 2 on one pixel."""

    def __init__(self, last_stride=2):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(32, 32, 3, 2, 1)
        self.weight = nn.Parameter(torch.randn(64, 32, 3, 3) / 17)
        self.head, self.last_stride = nn.Linear(64, 4), last_stride

    def forward(self, images):
        hidden = self.second(self.first(images).relu()).relu()
        # A function, not a module, as networks of others have them.
        return self.head(functional.conv2d(hidden, self.weight, stride=self.last_stride, padding=1).mean((2, 3)))


@pytest.fixture
def bf16_units(monkeypatch):
    monkeypatch.setattr(devices, "has_bf16_units", lambda _: True)


CPU = torch.device("cpu")


@pytest.mark.usefixtures("bf16_units")
@pytest.mark.parametrize(("last_stride", "expected"), [(1, "bf16"), (2, "float32")])
def test_auto_is_float32_where_a_stride_exceeds_the_input(image_set, last_stride, expected):
    network = Deep(last_stride).train()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    precision, notes = training_precision("auto", CPU, network, image_set(2, 4))
    assert precision == expected
    assert len(notes) == (expected == "float32")
    assert network.training
    assert all(tensor.equal(state[name]) for name, tensor in network.state_dict().items())


def test_bf16_is_refused_there_and_float32_taken(image_set):
    with pytest.raises(ArgumentError, match=r"precision: expected float32, because a convolution .*, got bf16"):
        training_precision("bf16", CPU, Deep(), image_set(2, 4))
    assert training_precision("float32", CPU, Deep(), image_set(2, 4)) == ("float32", ())
    assert training_precision("bf16", CPU, Deep(), image_set(2, 8)) == ("bf16", ())


@pytest.mark.usefixtures("bf16_units")
def test_a_run_records_its_precision_and_says_why(image_set, tmp_path):
    settings = {"architecture": "custom", "injection": "none", "augmentation": "none", "attack": "fgsm"}
    config = TrainingConfig(epochs=1, batch_size=8, validation_attack_images=2, **settings)
    heard = []
    result = train(config, image_set(16, 4), image_set(4, 4), tmp_path, network=Deep(), on_note=heard.append)
    assert heard == list(result.notes)
    assert "trains in float32" in heard[0]
    assert json.loads((tmp_path / "card.json").read_text())["precision"] == "no"


def test_where_the_rule_allows_bf16_its_weight_gradients_are_those_of_float32():
    # Freed memory full of NaN shows up in gradients that are not written.
    torch.manual_seed(0)
    for size, kernel, stride in [(1, 3, 1), (2, 3, 2), (2, 5, 2), (2, 7, 2), (3, 3, 2), (4, 5, 4)]:
        layer, images = nn.Conv2d(16, 32, kernel, stride, kernel // 2), torch.rand(4, 16, size, size)
        gradients = []
        for enabled in (False, True):
            junk = [torch.full((count,), torch.nan) for count in (4_608, 12_800, 25_088, 9_216)]
            del junk
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                outputs = layer(images)
            gradients.append(torch.autograd.grad(outputs.float().square().sum(), layer.weight)[0])
        assert torch.allclose(*gradients, rtol=0.05, atol=0.05 * float(gradients[0].abs().max()))
