"""The adapter against plain torch: normalisation, dtypes, output objects, probabilities."""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import smoothed
from smoothed.acceleration.fusing import Fused
from smoothed.errors import ArgumentError
from smoothed.injection import CNI, frozen, inject, noise_layers
from smoothed.models import ModelAdapter, Normalize
from smoothed.models.adapt import as_normalize, check_not_probabilities, looks_like_probabilities
from smoothed.smoothing.config import NoiseConfig

MEAN, STD = (0.1, 0.5, 0.9), (0.2, 0.5, 0.25)


class WithLogits(nn.Module):
    """Returns an object with the logits, as the image classifiers of transformers do."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return SimpleNamespace(loss=None, logits=self.network(inputs))


def by_hand(images):
    return (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


@pytest.mark.parametrize(
    "statistics",
    [
        (MEAN, STD),
        [list(MEAN), list(STD)],
        (torch.tensor(MEAN), torch.tensor(STD).view(3, 1, 1)),
        (torch.tensor(MEAN).numpy(), torch.tensor(STD).numpy()),
        Normalize(MEAN, STD),
    ],
)
def test_normalisation(statistics, network, images):
    adapter = ModelAdapter(network, statistics)
    assert torch.equal(adapter(images), network(by_hand(images)))
    assert isinstance(adapter.normalize, Normalize)
    assert adapter.normalize is not statistics
    assert_close(adapter.normalize.std.flatten(), torch.tensor(STD))


def test_single_numbers_are_for_one_channel():
    images = torch.rand(4, 1, 3, 3)
    assert torch.equal(ModelAdapter(nn.Flatten(), (0.5, 0.25))(images), ((images - 0.5) / 0.25).flatten(1))


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        (
            0.5,
            r"normalize: expected a mean and a standard deviation for each channel, got 0\.5; for example \(\(0\.485",
        ),
        ("imagenet", "for each channel, got 'imagenet'; for"),
        ((MEAN,), "a mean and a standard deviation for each channel"),
        ((MEAN, STD[:2]), "for each channel"),
        ((MEAN, "abc"), "for each channel"),
        (((), ()), "for each channel"),
        ((MEAN, (True, True, True)), "for each channel"),
        ((MEAN, (0.1, 0.0, 0.1)), "finite means and positive standard deviations"),
        (((0.1, float("nan"), 0.1), STD), "finite means"),
        (((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)), r"values for pixels in \[0, 1\], got .*; divide them by 255$"),
    ],
)
def test_invalid_statistics(statistics, message):
    with pytest.raises(ArgumentError, match=message):
        as_normalize(statistics)


def test_images_are_not_normalised_twice(network):
    model = smoothed.build("resnet20")
    with pytest.raises(
        ArgumentError, match="normalize: expected None, because the model has a Normalize layer of its own"
    ):
        ModelAdapter(model, (MEAN, STD))
    assert ModelAdapter(model).normalize is model.normalize
    assert ModelAdapter(network).normalize is None
    network.normalize = lambda images: images  # a method of the user's of this name
    assert ModelAdapter(network).normalize is None


def test_sigma_in_the_papers_unit(network, images):
    noise = smoothed.Gaussian.normalized(0.5, STD)
    by_adapter = NoiseConfig(sigma_normalized=0.5).for_model(ModelAdapter(network, (MEAN, STD)))
    assert_close(by_adapter(images, torch.Generator().manual_seed(0)), noise(images, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("of_inputs", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype, of_inputs, network, images):
    model, inputs = network.to(dtype), images.to(of_inputs).requires_grad_()
    adapter = ModelAdapter(model)
    logits = adapter(inputs)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, model(inputs.detach().to(dtype)).float())
    (gradient,) = torch.autograd.grad(logits.sum(), inputs)
    assert gradient.dtype == of_inputs
    assert gradient.abs().max() > 0


def test_half_precision_is_normalised_in_float32(network, images):
    adapter = ModelAdapter(network.half(), (MEAN, STD))
    assert torch.equal(adapter(images), network(by_hand(images).half()).float())


def test_a_callable_that_is_no_module(network, images):
    adapter = ModelAdapter(lambda inputs: network(inputs) * 2, (MEAN, STD))
    assert torch.equal(adapter(images), network(by_hand(images)) * 2)
    assert "lambda" in repr(adapter)
    assert not adapter.training


def test_the_model_is_left_as_it_is(network, images):
    network.train()
    before = copy.deepcopy(network.state_dict())
    adapter = ModelAdapter(network, (MEAN, STD))
    assert adapter.training
    assert network.training
    adapter.eval()
    assert not network.training
    adapter(images)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_noise_layers_and_names_of_layers(network, images):
    inject(network, weights=CNI(rank=2))
    adapter = ModelAdapter(network, (MEAN, STD))
    assert noise_layers(adapter) == noise_layers(network)
    with frozen(network, 3), frozen(adapter, 3):
        assert torch.equal(adapter(images), network(by_hand(images)))
    noise, chain = smoothed.Gaussian(0.1), nn.Sequential(Normalize(MEAN, STD), *network)
    voted = smoothed.Smoothed(adapter, noise, num_samples=3, layer="model.4", seed=0, vote="soft").eval()
    expected = smoothed.Smoothed(chain, noise, num_samples=3, layer="5", seed=0, vote="soft").eval()
    assert_close(voted(images), expected(images))
    assert torch.equal(voted.predict(images), expected.predict(images))


@pytest.mark.parametrize("kind", ["normalised", "probabilities", "objects"])
def test_fast_fuses_the_model_inside(kind, network, images):
    inject(network, weights=CNI(rank=2))
    model = {
        "normalised": ModelAdapter(network, (MEAN, STD)),
        "probabilities": ModelAdapter(nn.Sequential(network, nn.Softmax(1)), outputs="probabilities"),
        "objects": ModelAdapter(WithLogits(network)),
    }[kind]
    fast = smoothed.Fast(model)
    assert isinstance(fast.network, Fused), fast.reason
    with frozen(model, 1), frozen(fast, 1):
        assert_close(fast(images), model(images), rtol=1e-4, atol=1e-5)


class TestOutputObjects:
    """A model that returns objects gives what the plain network gives, everywhere."""

    def test_votes(self, network, images):
        plain, wrapped = (
            smoothed.Smoothed(model, smoothed.Gaussian(0.2), num_samples=8, seed=0)
            for model in (network, WithLogits(network))
        )
        assert torch.equal(wrapped(images), plain(images))
        assert torch.equal(wrapped.predict(images), plain.predict(images))
        assert torch.equal(wrapped.noisy_classifier(images).isfinite().all(1), torch.ones(16, dtype=torch.bool))

    def test_attacks(self, network, images, labels):
        pgd, fgsm = smoothed.attacks.pgd, smoothed.attacks.fgsm
        for attack in (
            lambda *a: pgd(*a, eps=0.05, generator=torch.Generator().manual_seed(0)),
            partial(fgsm, eps=0.05),
        ):
            models = network, WithLogits(network), ModelAdapter(WithLogits(network))
            plain, *others = (attack(model, images, labels) for model in models)
            assert not torch.equal(plain, images)
            assert all(torch.equal(other, plain) for other in others)

    def test_fast(self, network, images):
        assert_close(smoothed.Fast(WithLogits(network))(images), network(images))
        assert torch.equal(ModelAdapter(WithLogits(network))(images), network(images))


class TestProbabilities:
    def test_logits_and_gradient(self, network, images):
        model = ModelAdapter(nn.Sequential(network, nn.Softmax(1)), outputs="probabilities")
        inputs = images.clone().requires_grad_()
        logits = model(inputs)
        assert torch.equal(logits.argmax(1), network(images).argmax(1))
        assert_close(logits, network(images).log_softmax(1))
        assert_close(logits.softmax(1), network(images).softmax(1))
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), inputs)
        (expected,) = torch.autograd.grad(network(inputs).log_softmax(1)[:, 0].sum(), inputs)
        assert_close(gradient, expected, rtol=1e-4, atol=1e-6)

    def test_probabilities_of_zero_are_finite(self):
        model = ModelAdapter(lambda inputs: inputs.flatten(1), outputs="probabilities")
        inputs = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
        logits = model(inputs)
        (gradient,) = torch.autograd.grad(logits.sum(), inputs)
        assert logits.isfinite().all()
        assert logits.argmax().item() == 0
        assert gradient.flatten().tolist() == [1.0, 0.0]

    def test_logits_are_refused(self, network, images):
        with pytest.raises(
            ArgumentError, match=r"outputs: expected probabilities, rows in \[0, 1\] that sum to 1, got oth"
        ):
            ModelAdapter(network, outputs="probabilities")(images)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("classes", [2, 10, 1000])
    def test_are_noticed(self, dtype, classes, generator):
        logits = 3 * torch.randn(64, classes, generator=generator)
        for outputs in (logits.to(dtype).softmax(1), logits.softmax(1).to(dtype), logits.to(dtype).softmax(1).float()):
            assert looks_like_probabilities(outputs)
            assert looks_like_probabilities(SimpleNamespace(logits=outputs))
            with pytest.raises(
                ArgumentError, match=r'^network: expected logits, got probabilities.*outputs="probabilities"'
            ):
                check_not_probabilities(outputs, "network")

    @pytest.mark.parametrize(
        "outputs",
        [
            torch.tensor([[0.5, 0.5], [0.6, 0.3]]),
            torch.tensor([[1.5, -0.5]]),
            torch.tensor([[0.5, 0.499]]),
            torch.tensor([[float("nan"), 1.0]]),
            torch.tensor([[0.4, 0.5, 0.2], [0.1, 0.2, 0.7]]),
            torch.zeros(3, 4),
            torch.zeros(0, 4),
            torch.ones(3, 1),
            torch.tensor([[1, 0]]),
            torch.tensor([0.5, 0.5]),
            (torch.tensor([[0.5, 0.5]]),),
            None,
        ],
    )
    def test_others_are_not(self, outputs):
        assert not looks_like_probabilities(outputs)
        check_not_probabilities(outputs)

    def test_log_probabilities_and_sigmoids_are_not(self, network, images):
        for outputs in (network(images), network(images).log_softmax(1), network(images).sigmoid()):
            assert not looks_like_probabilities(outputs)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (3, {}, "model: expected a network or another callable from images to logits, got 3$"),
        (nn.Flatten, {}, "got the class Flatten; create an object of it"),
        (
            nn.Flatten(),
            {"outputs": "logit"},
            "outputs: expected one of logits, probabilities, got 'logit'; did you mean",
        ),
    ],
)
def test_errors(model, options, message):
    with pytest.raises(ArgumentError, match=message):
        ModelAdapter(model, **options)


@pytest.mark.parametrize(
    ("output", "got"),
    [
        ((torch.zeros(2, 3),), "a tuple of 1; wrap the model"),
        (torch.zeros(2, 3, 1), r"torch\.float32 \(2, 3, 1\)$"),
        (torch.zeros(3, 3), r"torch\.float32 \(3, 3\)$"),
        (torch.zeros(2, dtype=torch.int64), r"torch\.int64 \(2,\)$"),
    ],
)
def test_outputs_that_are_no_logits(output, got):
    with pytest.raises(ArgumentError, match=f"model: expected float logits of shape .* from the model, got {got}"):
        ModelAdapter(lambda _: output)(torch.zeros(2, 3, 4, 4))
