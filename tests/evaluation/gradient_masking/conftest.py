"""A defence made of any network."""

import pytest
import torch

from flawed import EPS, Few
from smoothed import Gaussian, Smoothed
from smoothed.evaluation.gradient_masking import CheckSettings, Defence
from smoothed.rng.seeds import seeded


@pytest.fixture
def few():
    return Few()


@pytest.fixture
def defence():
    """A function from a network to the defence that it makes on images that it classifies as `Few` does."""

    def defence(network, sigma=0.0, images=128, **settings):
        inputs = torch.randint(256, (images, 3, 8, 8), generator=seeded(0)) / 255
        labels = Few()(inputs).argmax(1)
        chosen = {"eps": EPS, "steps": 8, "queries": 40, "tries": 30, "votes": 2, **settings}
        smoothed = Smoothed(network, Gaussian(sigma), num_samples=4, seed=0)
        return Defence(smoothed, inputs, labels, CheckSettings(**chosen))

    return defence
