"""The strength of calibrated noise, against closed forms and against a grid."""

import copy
import math
from statistics import NormalDist

import pytest
import torch
from torch import nn

from refusing import check_refusals
from smoothed.errors import ArgumentError
from smoothed.injection import CNI, PNI, Additive, calibrate_noise, inject, noise_from, noise_layers, noiseless
from smoothed.rng.sources import Fresh

NORMAL = NormalDist()


def margin_network(margin):
    """One pixel x to the logits (x - 1/2, 1/2 - x) * 2; an image of 1/2 + margin / 2 is right by `margin`."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    network[1].weight.data = torch.tensor([[1.0], [-1.0]])
    network[1].bias.data = torch.tensor([-0.5, 0.5])
    count = 4000
    return network, torch.full((count, 1, 1, 1), 0.5 + margin), torch.zeros(count, dtype=torch.int64)


@pytest.mark.parametrize("largest_loss", [0.01, 0.05, 0.2])
def test_additive_noise_has_a_closed_form(largest_loss):
    """Noise s sigma on the pixel flips an image of margin m with probability Phi(-m / (s sigma))."""
    margin, sigma = 0.1, 0.4
    network, images, labels = margin_network(margin)
    inject(network, activations=Additive(sigma))
    found = calibrate_noise(
        network, images, labels, largest_loss=largest_loss, tolerance=2e-3, num_samples=8, batch_size=4000
    )
    strength = margin / sigma / NORMAL.inv_cdf(1 - largest_loss)
    # 32,000 draws; the deviation of the share, divided by the slope of the closed form.
    slope = NORMAL.pdf(margin / sigma / strength) * margin / sigma / strength**2
    deviation = math.sqrt(largest_loss * (1 - largest_loss) / (8 * 4000)) / slope
    assert abs(found.strength - strength) < 5 * deviation + 2e-3
    (layer,) = noise_layers(network)
    assert layer.sigma.item() == pytest.approx(sigma * found.strength)
    assert found.mean_accuracy == 1
    assert 1 - largest_loss <= found.noisy_accuracy < 1 - largest_loss + 0.01


@pytest.fixture
def trained(network, images):
    """The small network, with labels that it gives with 90 % accuracy."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(200, *images.shape[1:], generator=generator)
    with torch.no_grad():
        labels = network(images).argmax(1)
    labels[:20] = (labels[:20] + 1) % 4
    return network, images, labels


@pytest.mark.slow
@pytest.mark.parametrize(
    "laws", [{"weights": CNI(rank=2)}, {"weights": PNI("element", initial=0.6), "activations": PNI(initial=0.6)}]
)
def test_it_is_the_largest_on_a_grid(trained, laws):
    """Each strength of the grid on a network of its own, with fresh noise and many more draws."""
    network, images, labels = trained
    plain = copy.deepcopy(network)
    inject(network, **laws)
    found = calibrate_noise(network, images, labels, largest_loss=0.1, num_samples=16, batch_size=20)

    @torch.no_grad()
    def accuracy(strength, draws=100):
        noisy = copy.deepcopy(plain)
        inject(noisy, **laws, strength=strength)
        source = Fresh(torch.Generator().manual_seed(7))
        with noise_from(noisy, source):
            return sum((noisy(images).argmax(1) == labels).double().mean().item() for _ in range(draws)) / draws

    assert found.mean_accuracy == pytest.approx(0.9)
    # The accuracy of a draw has a deviation of 0.16; 160 and 300 draws of it are compared.
    assert accuracy(found.strength, 300) == pytest.approx(found.noisy_accuracy, abs=3 * 0.016)
    grid = [step / 12 for step in range(1, 13)]
    largest = max(strength for strength in grid if accuracy(strength) >= 0.8)
    assert largest < 1
    assert largest - 0.05 < found.strength < largest + 1 / 12 + 0.05


def test_the_network_is_left_alone_but_for_its_strengths(trained):
    network, images, labels = trained
    inject(network, weights=CNI(rank=2))
    network.train()[1].eval()
    before, modes = copy.deepcopy(network), [module.training for module in network.modules()]
    state = torch.random.get_rng_state()
    found = calibrate_noise(network, images, labels, largest_loss=0.1, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [module.training for module in network.modules()] == modes
    for layer in noise_layers(before):
        layer.scale_(found.strength)
    after = network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    twin = copy.deepcopy(trained[0])
    assert calibrate_noise(before, images, labels, largest_loss=0.1, seed=3).strength <= 1
    assert calibrate_noise(twin, images, labels, largest_loss=0.9).strength == 1  # nothing to weaken
    assert str(found).startswith(f"noise at {found.strength:.3g} of its strength: clean accuracy of a draw ")


def test_stronger_noise_can_be_looked_for():
    network, images, labels = margin_network(0.1)
    inject(network, activations=Additive(0.01))
    assert calibrate_noise(network, images, labels).strength == 1
    found = calibrate_noise(network, images, labels, largest_strength=20.0, tolerance=0.1, num_samples=2)
    assert found.strength == pytest.approx(10 / NORMAL.inv_cdf(0.95), abs=0.4)


def test_refusals_leave_the_noise(trained):
    network, images, labels = trained
    with pytest.raises(ArgumentError, match="model: expected a network with noise inside it, got none; add noise with"):
        calibrate_noise(network, images, labels)
    inject(network, weights=PNI(initial=50.0))
    cases = [
        ({"largest_loss": 0}, r"largest_loss: expected a number above 0 and below 1, got 0"),
        ({"largest_loss": 1.0}, r"largest_loss: expected a number above 0 and below 1, got 1.0"),
        ({"largest_strength": float("nan")}, "largest_strength: expected a finite number above 0, got nan"),
        ({"tolerance": 2}, "tolerance: expected a number above 0 and below 1, got 2"),
        ({"num_samples": 0}, "num_samples: expected an integer of at least 1"),
        ({"batch_size": 1.5}, "batch_size: expected an integer of at least 1"),
        ({"images": images * 255}, r"images: expected images in \[0, 1\]"),
        ({"labels": labels[:3]}, "labels: expected int64 classes of shape"),
        ({"labels": labels + 4}, "labels: expected classes in 0..3 of the model"),
        (
            {"largest_loss": 0.01, "tolerance": 0.5},
            "largest_loss: expected a loss .*, got 0.01, which a factor of 0.5 on",
        ),
    ]

    def call(**changes):
        calibrate_noise(network, **{"images": images, "labels": labels, **changes})

    check_refusals(call, cases)
    assert {layer.alpha.item() for layer in noise_layers(network)} == {50.0}
    with noiseless(network), torch.no_grad():
        assert (network(images).argmax(1) == labels).double().mean() == pytest.approx(0.9)
