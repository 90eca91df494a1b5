"""The objectives against numpy in float64, values and gradients by hand, on a random model of known draws."""

import itertools

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from smoothed.attacks import cross_entropy, expected_logits, expected_loss, expected_probabilities, one_draw_loss
from smoothed.attacks.gradient import input_gradient
from smoothed.errors import ArgumentError

DRAWS, IMAGES, PIXELS, CLASSES = 5, 6, 12, 4
EXPECTATIONS = (expected_loss, expected_probabilities, expected_logits)
expectations = pytest.mark.parametrize("expectation", EXPECTATIONS)


class RandomLinear:
    """The m-th call answers A_m x + b_m: a random model whose draws the test knows."""

    def __init__(self):
        random = np.random.default_rng(0)
        self.slopes = random.normal(size=(DRAWS, CLASSES, PIXELS))
        self.offsets = random.normal(size=(DRAWS, CLASSES))
        self.calls = 0

    def __call__(self, inputs):
        draw = self.calls % DRAWS
        self.calls += 1
        return inputs.flatten(1) @ torch.from_numpy(self.slopes[draw]).T + torch.from_numpy(self.offsets[draw])


@pytest.fixture
def random_linear():
    return RandomLinear()


@pytest.fixture
def batch(generator):
    inputs = torch.rand(IMAGES, 3, 2, 2, generator=generator, dtype=torch.float64)
    return inputs, torch.tensor([0, 1, 2, 3, 0, 1])


def by_hand(model, batch, what, draws=DRAWS):
    """Value and input gradient of each image, in numpy."""
    inputs, labels = batch[0].flatten(1).numpy(), batch[1].numpy()
    values, gradients = [], []
    for image, label in zip(inputs, labels, strict=True):
        slopes, target = model.slopes[:draws], np.eye(CLASSES)[label]
        logits = slopes @ image + model.offsets[:draws]
        odds = np.exp(logits)
        probabilities = odds / odds.sum(1, keepdims=True)
        right = probabilities[:, label]
        per_draw = np.einsum("mkp,mk->mp", slopes, probabilities - target)  # each draw's gradient of -log p_y
        if what is expected_loss:
            values.append(np.mean(-np.log(right)))
            gradients.append(per_draw.mean(0))
        elif what is expected_probabilities:  # eq. 25: -log of the mean softmax
            values.append(-np.log(np.mean(right)))
            gradients.append((right[:, None] * per_draw).sum(0) / right.sum())
        else:  # eq. 24: the mean logits, then the softmax
            mean = np.exp(logits.mean(0)) / np.exp(logits.mean(0)).sum()
            values.append(-np.log(mean[label]))
            gradients.append(slopes.mean(0).T @ (mean - target))
    return torch.tensor(np.array(values)), torch.tensor(np.array(gradients)).view_as(batch[0])


@expectations
def test_value_and_gradient_by_hand(expectation, random_linear, batch):
    value, gradient = by_hand(random_linear, batch, expectation)
    # Logits go through float32.
    assert_close(expectation(DRAWS)(random_linear, *batch).double(), value, rtol=1e-5, atol=1e-6)
    assert random_linear.calls == DRAWS
    got = input_gradient(expectation(DRAWS), random_linear, *batch)
    assert_close(got, gradient, rtol=1e-4, atol=1e-5)


def test_the_three_expectations_differ(random_linear, batch):
    """Else the test above would not tell them apart. Jensen: the log of the mean is below the mean of the logs."""
    values = {what: by_hand(random_linear, batch, what)[0] for what in EXPECTATIONS}
    for one, other in itertools.combinations(EXPECTATIONS, 2):
        assert (values[one] - values[other]).abs().min() > 1e-3
    assert (values[expected_probabilities] < values[expected_loss]).all()
    assert (values[expected_logits] < values[expected_loss]).all()


def test_one_draw_takes_one(random_linear, batch):
    value, gradient = by_hand(random_linear, batch, expected_loss, draws=1)
    assert_close(one_draw_loss()(random_linear, *batch).double(), value, rtol=1e-5, atol=1e-6)
    assert random_linear.calls == 1
    random_linear.calls = 0
    assert_close(input_gradient(one_draw_loss(), random_linear, *batch), gradient, rtol=1e-4, atol=1e-5)


@expectations
def test_one_sample_is_one_draw(expectation, random_linear, batch):
    expected = one_draw_loss()(random_linear, *batch)
    random_linear.calls = 0
    assert_close(expectation(1)(random_linear, *batch), expected)


@expectations
def test_on_a_deterministic_model_all_are_its_loss(expectation, network, images, labels):
    network.double()
    expected = -network(images.double()).log_softmax(1)[range(16), labels]
    assert_close(expectation(7)(network, images.double(), labels).double(), expected, rtol=1e-5, atol=1e-6)
    assert_close(one_draw_loss()(network, images.double(), labels).double(), expected, rtol=1e-5, atol=1e-6)


@expectations
def test_huge_logits_stay_finite(expectation, batch):
    def model(inputs):
        return 1e4 * inputs.flatten(1)[:, :CLASSES]

    value = expectation(3)(model, *batch)
    assert value.isfinite().all()
    assert input_gradient(expectation(3), model, *batch).isfinite().all()


def test_any_loss(random_linear, batch):
    """The loss of a draw can be the user's: here minus the label's logit."""

    def loss(logits, labels):
        return -logits.gather(1, labels[:, None])[:, 0]

    inputs, labels = batch
    at_label = random_linear.slopes[:, labels.numpy()]  # (draws, images, pixels)
    logits = np.einsum("mnp,np->mn", at_label, inputs.flatten(1).numpy()) + random_linear.offsets[:, labels.numpy()]
    value = expected_loss(DRAWS, loss)(random_linear, *batch)
    assert_close(value.double(), -torch.from_numpy(logits).mean(0), rtol=1e-5, atol=1e-6)
    value = one_draw_loss(loss)(random_linear, *batch)
    assert_close(value.double(), -torch.from_numpy(logits)[0], rtol=1e-5, atol=1e-6)


def test_cross_entropy_is_in_nats():
    """Two classes at odds 3 : 1."""
    logits, labels = torch.tensor([[3.0, 1.0], [3.0, 1.0]]).log(), torch.tensor([0, 1])
    assert_close(cross_entropy(logits, labels), torch.tensor([4 / 3, 4.0]).log())


class TestErrors:
    @expectations
    @pytest.mark.parametrize("eot_samples", [0, -1, 1.5, True])
    def test_eot_samples(self, expectation, eot_samples):
        with pytest.raises(ArgumentError, match="eot_samples: expected an integer of at least 1"):
            expectation(eot_samples)

    @pytest.mark.parametrize(
        "objective", [one_draw_loss(), expected_loss(2), expected_probabilities(2), expected_logits(2)]
    )
    def test_logits(self, objective, batch):
        with pytest.raises(ArgumentError, match=r"model: expected float logits of shape \(6, K\), K >= 2"):
            objective(lambda inputs: inputs.flatten(1)[:3], *batch)


@pytest.mark.parametrize("label", [-100, -1, 4])
def test_a_label_that_is_no_class_is_refused(network, images, label):
    labels = torch.full((16,), label)
    with pytest.raises(ArgumentError, match=f"labels: expected classes in 0..3 of the model, got {label}"):
        one_draw_loss()(network, images, labels)


def test_a_float64_model_is_attacked_in_float64(network, images, labels):
    assert one_draw_loss()(network.double(), images.double(), labels).dtype == torch.float64
