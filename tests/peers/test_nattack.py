"""NAttack on the bundled network, mean and random, beside the white box: success rises with queries and stays below."""

from contextlib import nullcontext

import pytest
import torch

import smoothed
from smoothed.acceleration.fusing import fuse
from smoothed.attacks import Queries, pgd
from smoothed.attacks.query_based.nattack import nattack
from smoothed.data.sample import load_sample
from smoothed.injection import noise_from
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh

EPS, IMAGES, DRAWS = 8 / 255, 24, 64


@torch.no_grad()
def success(model, attacked, labels, draws):
    """The share of wrong answers on draws that no attack has seen, the same ones for all attacked images."""
    with noise_from(model, Fresh(seeded(1))):
        return torch.stack([model(attacked).argmax(1) != labels for _ in range(draws)]).float().mean().item()


@pytest.mark.parametrize("random", [False, True], ids=["mean", "random"])
def test_success_rises_and_stays_below_the_white_box(random):
    sample, network = load_sample(), smoothed.load("resnet20-cni-w").eval()
    inputs, labels = sample.images[:IMAGES] / 255, sample.labels[:IMAGES]
    model, draws = fuse(network), DRAWS if random else 1
    with noise_from(network, Fresh(seeded(0))), nullcontext() if random else smoothed.noiseless(network):
        rates = [success(model, inputs, labels, draws)]
        for max_queries in (50, 400):
            queries = Queries(model, max_queries=max_queries)
            attacked = nattack(queries, inputs, labels, eps=EPS, generator=seeded(0))
            rates.append(success(model, attacked, labels, draws))
        white_box = success(model, pgd(model, inputs, labels, eps=EPS, steps=50, generator=seeded(0)), labels, draws)
    assert rates == sorted(rates)
    assert rates[-1] > rates[0]
    assert rates[-1] < white_box
