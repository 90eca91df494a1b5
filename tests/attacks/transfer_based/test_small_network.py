"""The small network: its shapes, its weights' law, where its randomness comes from, and that it can learn a place."""

import pytest
import torch
from torch.nn import functional

from smoothed.attacks.transfer_based.small_network import small_network
from smoothed.rng.seeds import seeded


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 2), (3, 8, 8), (1, 28, 28), (3, 32, 32), (3, 17, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_takes_images_of_any_size(shape, dtype):
    inputs = torch.rand(2, *shape, generator=seeded(0)).to(dtype)
    logits = small_network(inputs, 7)(inputs)
    assert logits.shape == (2, 7)
    assert logits.dtype == dtype


def test_weights_are_hes_and_the_generators():
    """Uniform with variance 2 / fan-in, which keeps a signal's size through the layers; biases are 0."""
    images = torch.rand(4, 3, 32, 32, generator=seeded(0))
    before = torch.get_rng_state()
    first, again, other = (small_network(images, 10, seeded(seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    weights = [name for name in first if name.endswith("weight")]
    assert len(weights) == 4
    for name in weights:
        assert not torch.equal(first[name], other[name])
        fan_in = first[name][0].numel()
        assert first[name].square().mean() * fan_in == pytest.approx(2, rel=0.1)
        assert first[name].abs().max() <= (6 / fan_in) ** 0.5
    assert all(bool((first[name] == 0).all()) for name in first if name not in weights)


def test_it_learns_where_the_light_is():
    """Four classes: the quarter of a dark image with a bright spot. A mean over all places would not see it."""
    generator = seeded(3)
    images, labels = torch.zeros(64, 1, 16, 16), torch.randint(4, (64,), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = torch.randint(1, 6, (2,), generator=generator).tolist()
        row, column = row + 8 * (label // 2), column + 8 * (label % 2)
        image[0, row : row + 2, column : column + 2] = 1.0
    network = small_network(images, 4, seeded(1))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(network(images[:48]), labels[:48]).backward()
        optimizer.step()
    assert (network(images[48:]).argmax(1) == labels[48:]).double().mean() > 0.8
