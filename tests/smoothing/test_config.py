"""Settings of noise and of smoothed classifiers: both units, checkpoint headers, and what is refused."""

import json
import re
from dataclasses import asdict

import pytest
import torch
from torch import nn

from refusing import check_refusals
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.models import Normalize
from smoothed.rng.seeds import seeded
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.config import NoiseConfig, SmoothingConfig
from smoothed.smoothing.input_noise import Gaussian, Laplace, Uniform

STD = (0.25, 0.2, 0.5)


@pytest.fixture
def normalized(network):
    """The network behind a layer that divides by `STD`."""

    class Normalized(nn.Module):
        def __init__(self):
            super().__init__()
            self.normalize = Normalize((0.5, 0.4, 0.3), STD)
            self.network = network

        def forward(self, inputs):
            return self.network(self.normalize(inputs))

    return Normalized().eval()


def test_pixel_units_are_one_deviation_for_all_channels(normalized, network):
    config = NoiseConfig(0.1)
    for model in (normalized, network):
        noise = config.for_model(model)
        assert isinstance(noise, Gaussian)
        assert noise.sigma == 0.1
    expected = sum(0.1 / std for std in STD) / 3
    assert config.to_json(normalized) == {
        "noise": "gaussian",
        "sigma": 0.1,
        "sigma_normalized": pytest.approx(expected),
    }
    assert config.to_json(network) == {"noise": "gaussian", "sigma": 0.1, "sigma_normalized": None}


def test_the_papers_unit_is_a_deviation_for_each_channel(normalized):
    config = NoiseConfig(sigma_normalized=0.4, law="laplace")
    noise = config.for_model(normalized)
    assert isinstance(noise, Laplace)
    assert noise.sigma == pytest.approx([0.4 * std for std in STD])
    expected = {"noise": "laplace", "sigma": pytest.approx(0.4 * sum(STD) / 3), "sigma_normalized": 0.4}
    assert config.to_json(normalized) == expected


def test_no_noise_in_either_unit(normalized):
    expected = {"noise": "gaussian", "sigma": 0.0, "sigma_normalized": 0.0}
    assert NoiseConfig(0.0).to_json(normalized) == NoiseConfig(sigma_normalized=0.0).to_json(normalized) == expected


def test_what_noise_is_refused(network):
    check_refusals(
        NoiseConfig,
        [
            ({}, "^sigma: expected exactly one of sigma and sigma_normalized, got neither"),
            ({"sigma": 0.1, "sigma_normalized": 0.4}, "^sigma: expected exactly one of .*, got both"),
            ({"sigma": -0.1}, "^sigma: expected a finite number of at least 0, got -0.1"),
            ({"sigma_normalized": float("inf")}, "^sigma_normalized: expected a finite number of at least 0, got inf"),
            ({"sigma": 0.1, "law": "pink"}, "^noise: expected one of gaussian, uniform, laplace, got 'pink'"),
        ],
    )
    message = "^sigma_normalized: expected a model with a `normalize` layer, got Sequential; give sigma in pixel units"
    check_refusals(NoiseConfig(sigma_normalized=0.4).for_model, [({"model": network}, message)])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, NoiseConfig(0.0)),
        ({"smoothing": None}, NoiseConfig(0.0)),
        ({"smoothing": {"sigma": 0.1}}, NoiseConfig(0.1)),
        ({"smoothing": {"sigma": 0.1, "sigma_normalized": None}}, NoiseConfig(0.1)),
        ({"smoothing": {"sigma": 0.1, "sigma_normalized": 0.4, "vote": "soft"}}, NoiseConfig(sigma_normalized=0.4)),
    ],
)
def test_noise_of_a_header(header, expected):
    assert NoiseConfig.from_header(header) == expected
    assert asdict(NoiseConfig.from_header(header, "uniform")) == {**asdict(expected), "law": "uniform"}


@pytest.mark.parametrize(
    ("smoothing", "message"),
    [
        (
            {"sigma": 0.24, "sigma_units": "normalized"},
            "checkpoint: expected smoothing with sigma and sigma_normalized, got sigma_units of an older version; "
            "choose sigma again with `smoothed evaluate --split validation --tune`",
        ),
        ({"vote": "soft"}, "checkpoint: expected smoothing with sigma or sigma_normalized, got {'vote': 'soft'}"),
        ({"sigma": "much"}, "checkpoint: expected smoothing with sigma or sigma_normalized, got {'sigma': 'much'}"),
        ({"sigma": None}, "checkpoint: expected smoothing with sigma or sigma_normalized, got {'sigma': None}"),
        (0.24, "checkpoint: expected smoothing with sigma or sigma_normalized, got 0.24"),
    ],
)
def test_a_header_that_tells_no_noise_is_refused(smoothing, message):
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        NoiseConfig.from_header({"smoothing": smoothing})


def test_the_smoothed_classifier_has_all_settings(normalized, images):
    config = SmoothingConfig(NoiseConfig(sigma_normalized=0.4, law="uniform"), "soft", 5)
    smoothed = config.smooth(normalized, chunk_size=7, seed=3)
    noise = smoothed.noisy_classifier.noise
    assert isinstance(noise, Uniform)
    assert noise.sigma == pytest.approx([0.4 * std for std in STD])
    assert (smoothed.num_samples, smoothed.chunk_size) == (5, 7)
    assert torch.equal(smoothed.predict(images), config.smooth(normalized, chunk_size=100, seed=3).predict(images))
    expected = {**config.noise.to_json(normalized), "vote": "soft", "num_samples": 5, "layer": None}
    assert config.to_json(normalized) == expected


def test_a_voter_computes_the_draws_and_the_model_tells_the_unit(normalized, images):
    class Voter(nn.Module):
        def forward(self, inputs):
            return normalized(inputs).flip(1)

    config = SmoothingConfig(NoiseConfig(sigma_normalized=0.0), num_samples=1)
    expected = normalized(images).argmax(1)
    assert torch.equal(config.smooth(normalized, seed=0).predict(images), expected)
    assert torch.equal(config.smooth(normalized, voter=Voter(), seed=0).predict(images), 3 - expected)


def salt(inputs):
    return (torch.rand_like(inputs) < 0.1).float()


@pytest.mark.parametrize(
    ("noise", "config", "shown"),
    [
        (None, NoiseConfig(0.0), ("gaussian", 0.0)),
        (Gaussian(0.1), NoiseConfig(0.1), ("gaussian", 0.1)),
        (Laplace(0.1), NoiseConfig(0.1, law="laplace"), ("laplace", 0.1)),
        (Uniform((0.1, 0.2, 0.3)), NoiseConfig(custom=Uniform((0.1, 0.2, 0.3))), ("uniform", 0.2)),
        (salt, NoiseConfig(custom=salt), ("salt", None)),
    ],
)
def test_the_noise_of_a_smoothed_classifier_is_described(noise, config, shown, network, normalized):
    described = NoiseConfig.of(noise)
    assert described == config
    assert described.name == shown[0]
    assert described.to_json(network) == {"noise": shown[0], "sigma": pytest.approx(shown[1]), "sigma_normalized": None}
    made = described.for_model(network)
    assert made == (Gaussian(0.0) if noise is None else noise)
    if shown[1] and isinstance(noise.sigma, tuple):
        expected = sum(sigma / std for sigma, std in zip(noise.sigma, STD, strict=True)) / 3
        assert described.to_json(normalized)["sigma_normalized"] == pytest.approx(expected)


def test_noise_of_a_subclass_is_kept_as_it_is(network):
    class Mine(Gaussian):
        """A noise that is no `Gaussian` to the name."""

    config = NoiseConfig.of(Mine(0.1))
    assert config.for_model(network) == Mine(0.1)
    assert config.to_json(network) == {"noise": "Mine", "sigma": 0.1, "sigma_normalized": None}


def test_own_noise_beside_a_stated_deviation(network):
    config = NoiseConfig(sigma=0.05, custom=salt)
    assert config.for_model(network) is salt
    assert config.to_json(network) == {"noise": "salt", "sigma": 0.05, "sigma_normalized": None}
    assert json.loads(json.dumps(config.settings()))["custom"] == "salt"
    with pytest.raises(ArgumentError, match="sigma_normalized: expected a law of this package, got the noise salt"):
        NoiseConfig(sigma_normalized=0.1, custom=salt)


def test_settings_tell_noises_apart():
    """Steps on disk are found again by these settings."""
    noises = [
        None,
        Gaussian(0.1),
        Gaussian(0.2),
        Laplace(0.1),
        Gaussian((0.1, 0.2, 0.3)),
        Gaussian((0.1, 0.2, 0.4)),
        salt,
    ]
    described = [json.dumps(NoiseConfig.of(noise).settings()) for noise in noises]
    assert len(set(described)) == len(noises)
    assert described == [json.dumps(NoiseConfig.of(noise).settings()) for noise in noises]


def test_a_smoothed_classifier_is_described_and_made_again(normalized, images):
    def own_vote(logits):
        return logits.softmax(-1) ** 2

    first = Smoothed(
        normalized, salt, vote=own_vote, num_samples=6, layer="network", pack_draws=False, chunk_size=5, seed=2
    )
    config = SmoothingConfig.of(first)
    assert (config.vote, config.vote_name, config.num_samples) == (own_vote, "own_vote", 6)
    assert (config.layer, config.pack_draws) == ("network", False)
    assert config.to_json(normalized) == {
        "noise": "salt", "sigma": None, "sigma_normalized": None, "vote": "own_vote", "num_samples": 6,
        "layer": "network",
    }  # fmt: skip
    assert json.loads(json.dumps(config.settings()))["layer"] == "network"
    again = config.smooth(normalized, voter=nn.Identity(), seed=2)  # the voter does not have the layer
    # Sizes of chunks decide how sums are rounded.
    torch.testing.assert_close(first.eval()(images, seeded(3)), again.eval()(images, seeded(3)))


def test_rows_of_a_plain_function_are_not_packed_afterwards(network):
    """A function may share randomness between rows, also when a network is made of it."""
    assert SmoothingConfig.of(Smoothed(lambda inputs: network(inputs))).pack_draws is False  # noqa: PLW0108
    assert SmoothingConfig.of(Smoothed(network)).pack_draws is None


def test_what_smoothing_is_refused():
    check_refusals(
        SmoothingConfig,
        [
            ({"vote": "hard"}, "^vote: expected one of prediction, weighted, soft, got 'hard'"),
            ({"num_samples": 0}, "^num_samples: expected an integer of at least 1, got 0"),
        ],
    )
