"""Smoothed inference against naive loops and against a network whose class probabilities under noise are known."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import nn
from torch.testing import assert_close

from quick import first
from smoothed import (
    CNI,
    PNI,
    Fast,
    Gaussian,
    Laplace,
    NoisyClassifier,
    Normalize,
    Smoothed,
    Uniform,
    attacks,
    inject,
    load,
    noiseless,
    votes,
)
from smoothed.errors import ArgumentError
from smoothed.injection import noise_from
from smoothed.injection.additive import AdditiveLayer
from smoothed.rng.seeds import seed_from
from smoothed.rng.sources import Keyed
from smoothed.smoothing.classifier import SigmaWarning
from smoothed.smoothing.votes import by_rank


class Halfspace(nn.Module):
    """Two classes by the sign of w.x + b: under Gaussian noise class 1 has probability Phi((w.x + b) / (sigma |w|))."""

    def __init__(self, pixels):
        super().__init__()
        self.weight = torch.linspace(-1, 1, pixels)

    def forward(self, inputs):
        margin = inputs.flatten(1) @ self.weight
        return torch.stack([torch.zeros_like(margin), margin], 1)


@pytest.fixture
def halfspace():
    return Halfspace(3 * 8 * 8)


@pytest.mark.slow
def test_prediction_shares_are_the_known_probabilities(halfspace, images):
    sigma, draws = 0.4, 4000
    shares = Smoothed(halfspace, Gaussian(sigma), num_samples=draws, seed=0).eval()(images)
    margin = images.flatten(1) @ halfspace.weight
    known = torch.tensor(norm.cdf(margin / (sigma * halfspace.weight.norm())), dtype=torch.float32)
    assert known.std() > 0.1  # the images differ, so that the comparison says something
    assert (shares[:, 1] - known).abs().max() < 4.5 * 0.5 / math.sqrt(draws)


@pytest.mark.slow
def test_weighted_shares_of_two_classes_are_the_known_mixture(halfspace, images):
    sigma, draws = 0.4, 4000
    shares = Smoothed(halfspace, Gaussian(sigma), vote="weighted", num_samples=draws, seed=0).eval()(images)
    known = norm.cdf((images.flatten(1) @ halfspace.weight) / (sigma * halfspace.weight.norm()))
    # A draw gives 1 to its winner and 1/2 to the other: 3/2 in all.
    expected = torch.tensor((known + (1 - known) / 2) / 1.5, dtype=torch.float32)
    assert (shares[:, 1] - expected).abs().max() < 4.5 * 0.5 / 3 / math.sqrt(draws)


@pytest.mark.slow
def test_soft_shares_are_the_gaussian_integral_of_the_sigmoid(halfspace, images):
    sigma, draws = 0.4, 4000
    shares = Smoothed(halfspace, Gaussian(sigma), vote="soft", num_samples=draws, seed=0).eval()(images)
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = torch.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi) * (grid[1] - grid[0])
    margin = (images.flatten(1) @ halfspace.weight).double()
    known = (torch.sigmoid(margin[:, None] + sigma * halfspace.weight.norm() * grid) * density).sum(1)
    assert (shares[:, 1] - known).abs().max() < 4.5 * 0.35 / math.sqrt(draws)


@pytest.fixture
def noisy_network(network):
    inject(network, weights=CNI(rank=2))
    return network


def literal(model, noise, inputs, vote, draws, seed):
    """Eq. 8 as a loop over draws, with the same keys."""
    draw = NoisyClassifier(model, noise)
    total = 0
    for number in range(draws):
        with torch.no_grad():
            total = total + vote(draw.with_key(inputs, Keyed(seed, number)))
    return total


@pytest.mark.parametrize("vote", [*votes.VOTES, "top_two"])
def test_each_vote_is_the_literal_sum_over_draws(noisy_network, images, vote):
    vote = votes.top_two(0.3) if vote == "top_two" else vote
    smoothed = Smoothed(noisy_network, Gaussian(0.1), vote=vote, num_samples=7)
    seeds = torch.Generator().manual_seed(5)
    counted = smoothed.tally(images, votes={"own": vote}, generator=seeds)["own"][7]
    seed = seed_from(torch.Generator().manual_seed(5))
    expected = literal(noisy_network, Gaussian(0.1), images, votes.resolve(vote), 7, seed)
    assert torch.allclose(counted.scores, expected, atol=1e-5)
    assert counted.num_samples.tolist() == [7] * len(images)


@pytest.mark.parametrize("kind", ["input noise", "weights", "activations"])
@pytest.mark.parametrize("chunk_size", first(2, [3, 16, 1, 1000]))
def test_same_seed_same_votes_for_any_chunk(network, images, kind, chunk_size):
    if kind == "weights":
        inject(network, weights=CNI())
    elif kind == "activations":
        inject(network, activations=PNI())
    counts = []
    for size in (16, chunk_size):
        smoothed = Smoothed(network, Gaussian(0.2), num_samples=9, chunk_size=size, seed=3)
        counts.append(smoothed.tally(images, num_samples=[1, 4, 9]))
    for vote in votes.VOTES:
        for count in (1, 4, 9):
            assert torch.allclose(counts[0][vote][count].scores, counts[1][vote][count].scores, atol=1e-4)


def test_images_tallied_one_by_one_get_the_votes_of_the_batch(noisy_network, images):
    smoothed = Smoothed(noisy_network, Gaussian(0.2), num_samples=5)

    def scores(part, first):
        tallies = smoothed.tally(part, generator=torch.Generator().manual_seed(1), first_image=first)
        return tallies["soft"][5].scores

    together = scores(images, 0)
    alone = torch.cat([scores(image[None], number) for number, image in enumerate(images)])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.slow
def test_a_tally_at_m_is_of_the_first_m_draws(noisy_network, images):
    def at(counts):
        return Smoothed(noisy_network, Gaussian(0.2), seed=2).tally(images, num_samples=counts)["weighted"]

    several = at([8, 1, 64])
    assert sorted(several) == [1, 8, 64]
    for count in (1, 8, 64):
        assert torch.allclose(several[count].scores, at([count])[count].scores)


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(1, 5))
def test_scores_of_prediction_add_up_to_the_draws(draws, chunk):
    smoothed = Smoothed(Halfspace(12), Gaussian(0.5), num_samples=draws, chunk_size=chunk, seed=0)
    counted = smoothed.tally(torch.full((3, 3, 2, 2), 0.5))["prediction"][draws]
    assert counted.scores.sum(1).tolist() == [draws] * 3


def test_calls_differ_and_seeds_repeat(noisy_network, images):
    first, second = (Smoothed(noisy_network, Gaussian(0.3), vote="soft", num_samples=2, seed=0) for _ in range(2))
    once, again = first(images), first(images)
    assert not torch.equal(once, again)
    assert torch.equal(once, second(images))
    seeded = [first(images, torch.Generator().manual_seed(9)) for _ in range(2)]
    assert torch.equal(*seeded)
    assert not torch.equal(Smoothed(noisy_network, Gaussian(0.3), vote="soft", num_samples=2)(images), once)


def test_the_global_generator_is_not_touched(noisy_network, images):
    before = torch.random.get_rng_state()
    Smoothed(noisy_network, Gaussian(0.3), num_samples=3).predict(images)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.slow
def test_no_two_votes_of_an_image_share_weight_noise(network, images):
    """At M draws of weight noise alone, the soft vote's variance over calls falls as 1 / M."""
    inject(network, weights=PNI())
    variances = []
    for draws in (1, 16):
        smoothed = Smoothed(network, None, vote="soft", num_samples=draws, chunk_size=1000, seed=0)
        with torch.no_grad():
            variances.append(torch.stack([smoothed(images[:2]) for _ in range(200)]).var(0).mean())
    assert 10 < variances[0] / variances[1] < 25


def test_without_any_noise_one_draw_decides(network, images):
    smoothed = Smoothed(network, None, num_samples=3)
    assert torch.equal(smoothed.predict(images), network(images).argmax(1))
    assert Smoothed(network, Gaussian(0.0), num_samples=1).noisy_classifier.has_no_noise


def test_sigma_zero_votes_over_the_networks_own_noise(noisy_network, images):
    shares = Smoothed(noisy_network, Gaussian(0.0), vote="soft", num_samples=3, seed=0)(images)
    with noiseless(noisy_network):
        assert not torch.allclose(shares, noisy_network(images).softmax(1), atol=1e-4)


def test_noise_at_a_hidden_layer_is_equation_22(network, images):
    noise = Gaussian(0.5)
    smoothed = Smoothed(network, noise, vote="soft", num_samples=4, layer="4")
    counted = smoothed.tally(images, votes=["soft"], generator=torch.Generator().manual_seed(0))["soft"][4]
    seed = seed_from(torch.Generator().manual_seed(0))
    features = network[:4](images)
    expected = 0
    for draw in range(4):
        drawn = noise.sigma * Keyed(seed, draw).rows(0, features.shape, features)
        expected = expected + network[4:](features + drawn).softmax(1)
    assert torch.allclose(counted.scores, expected, atol=1e-5)
    assert not network[4]._forward_pre_hooks


def test_soft_smoothing_is_differentiable(network, images):
    inputs = images.clone().requires_grad_()
    smoothed = Smoothed(network, Gaussian(0.1), vote="soft", num_samples=3, seed=1)
    smoothed(inputs)[:, 0].sum().backward()
    gradient = inputs.grad.clone()
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    step = 1e-2

    def value(offset):
        with torch.no_grad():
            again = Smoothed(network, Gaussian(0.1), vote="soft", num_samples=3, seed=1)
            return again((images * 0.9 + 0.05 + offset * direction).clamp(0, 1))[:, 0].sum()

    inputs.grad = None
    inner = (images * 0.9 + 0.05).requires_grad_()
    Smoothed(network, Gaussian(0.1), vote="soft", num_samples=3, seed=1)(inner)[:, 0].sum().backward()
    numeric = (value(step) - value(-step)) / (2 * step)
    assert gradient.isfinite().all()
    assert numeric.item() == pytest.approx((inner.grad * direction).sum().item(), rel=0.05)


def test_the_model_is_left_as_it_was_found(noisy_network, images):
    noisy_network.train()
    noisy_network[3].eval()
    modes = [module.training for module in noisy_network.modules()]
    weights = copy.deepcopy(noisy_network.state_dict())
    Smoothed(noisy_network, Gaussian(0.1), num_samples=2, layer="4").predict(images)
    assert [module.training for module in noisy_network.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in noisy_network.state_dict().items())
    assert all(parameter.grad is None for parameter in noisy_network.parameters())


def test_log_probs_are_logarithms_of_shares(network, images):
    smoothed = Smoothed(network, Gaussian(0.3), num_samples=8)
    seeds = [torch.Generator().manual_seed(4) for _ in range(2)]
    shares, logs = smoothed(images, seeds[0]), smoothed.log_probs(images, seeds[1])
    assert torch.allclose(logs.exp(), shares, atol=1e-6)
    assert logs.isfinite().all()


class TestLogProbsOfConfidentImages:
    """Shares of 1e-13 and less: 1 minus them is 1 in float32, where a gradient through shares is 0."""

    @pytest.fixture
    def confident(self, network):
        network[-1].weight.data.mul_(400)
        return network

    @pytest.mark.parametrize("pack_draws", [True, False])
    def test_values_and_gradients_are_those_in_float64(self, confident, images, pack_draws):
        seen = []
        confident.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
        options = {"vote": "soft", "num_samples": 3, "seed": 0, "pack_draws": pack_draws}
        inputs = images.clone().requires_grad_()
        logs = Smoothed(confident, Gaussian(1e-3), **options).eval().log_probs(inputs)
        labels = logs.argmax(1)
        torch.nn.functional.cross_entropy(logs, labels).backward()

        noise = torch.cat(seen).view(3, *images.shape) - images
        exact, wide = copy.deepcopy(confident).double(), images.double().requires_grad_()
        expected = sum(exact(wide + each).softmax(1) for each in noise).div(3).log()
        assert expected.min() < -30
        assert_close(logs, expected.float(), rtol=1e-3, atol=1e-3)
        torch.nn.functional.cross_entropy(expected, labels).backward()
        sure = expected.detach().exp().amax(1) > 1 - 1e-8
        assert sure.any()
        assert inputs.grad[sure].abs().amax((1, 2, 3)).min() > 0
        gradients = inputs.grad.double().flatten(1), wide.grad.flatten(1)
        cosine = torch.nn.functional.cosine_similarity(*gradients, eps=1e-100)
        assert cosine.min() > 0.999

    def test_logits_that_are_not_finite_are_refused(self, images):
        smoothed = Smoothed(lambda inputs: inputs.flatten(1)[:, :3] * math.nan, num_samples=2, vote="soft")
        with pytest.raises(ArgumentError, match="finite logits"):
            smoothed.log_probs(images)


def test_as_logits_is_a_network_whose_outputs_are_log_probs(network, images):
    smoothed, again = (Smoothed(network, Gaussian(0.3), vote="soft", num_samples=4, seed=0) for _ in range(2))
    logits = smoothed.eval().as_logits()
    assert not logits.training
    assert dict(logits.named_parameters()).keys() == {f"smoothed.{name}" for name, _ in smoothed.named_parameters()}
    inputs = images.clone().requires_grad_()
    outputs = logits(inputs)
    with torch.no_grad():
        assert torch.equal(outputs, again.eval().log_probs(images))
    outputs[:, 0].sum().backward()
    assert inputs.grad.abs().amax((1, 2, 3)).min() > 0
    logits.train()
    assert network.training
    assert smoothed.as_logits().training


def test_outputs_follow_the_inputs_dtype(images):
    double = Smoothed(Halfspace(192).double(), Gaussian(0.1), num_samples=2)
    double.model.weight = double.model.weight.double()
    assert double(images.double()).dtype == torch.float64


def test_a_plain_function_and_ones_own_noise_and_vote_work(images):
    def model(inputs):
        return inputs.mean((2, 3))

    def salt(inputs, generator):
        return torch.bernoulli(torch.full_like(inputs, 0.1), generator=generator)

    smoothed = Smoothed(model, salt, vote=lambda logits: logits.clamp_min(0), num_samples=5, seed=0)
    shares = smoothed(images)
    assert shares.shape == (16, 3)
    assert torch.allclose(shares.sum(1), torch.ones(16))


def test_one_draw_takes_its_noise_from_its_generator(network, images):
    draws = [
        NoisyClassifier(network, Gaussian(0.2), generator=torch.Generator().manual_seed(0))(images) for _ in range(2)
    ]
    assert torch.equal(*draws)
    with noise_from(network, None):
        expected = network(images + Gaussian(0.2)(images, torch.Generator().manual_seed(0)))
    assert torch.equal(draws[0], expected)


@pytest.mark.parametrize(("chunk_size", "most"), [(10, 10), (np.int64(10), 10), (None, 128)])
def test_memory_is_bounded_by_the_chunk(network, images, chunk_size, most):
    rows = []
    network.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    Smoothed(network, Gaussian(0.1), num_samples=50, chunk_size=chunk_size, stop=None).predict(images)
    assert most / 2 < max(rows) <= most
    assert sum(rows) == 50 * 16


def test_a_probe_finds_the_chunk_once_and_changes_no_vote(network, images):
    network.train()
    statistics, rows = network[1].running_mean.clone(), []
    network.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    smoothed = Smoothed(network, Gaussian(0.1), num_samples=300, chunk_size="auto", seed=1)
    tallies = smoothed.tally(images)
    probed = len(rows)
    assert rows[:8] == [16] * 4 + [32] * 4
    smoothed.tally(images)
    assert len(rows) - probed < probed - 12  # no probe
    assert torch.equal(network[1].running_mean, statistics)
    plain = Smoothed(network, Gaussian(0.1), num_samples=300, seed=1).tally(images)
    assert torch.allclose(tallies["soft"][300].scores, plain["soft"][300].scores, atol=1e-3)
    rows.clear()
    Smoothed(network, Gaussian(0.1), num_samples=10, chunk_size="auto", stop=None).predict(images)
    assert rows == [128, 32]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda m: Smoothed(m, num_samples=0), "num_samples: expected an integer of at least 1, got 0"),
        (lambda m: Smoothed(m, chunk_size=0), "chunk_size: expected an integer of at least 1"),
        (lambda m: Smoothed(m, vote="hard"), "vote: expected one of"),
        (lambda m: Smoothed(m, Gaussian(-0.1)), "sigma: expected a finite number of at least 0, got -0.1"),
        (lambda m: Smoothed(m, layer="nowhere"), "layer: expected the name of a submodule"),
    ],
)
def test_bad_options(network, build, message):
    with pytest.raises(ArgumentError, match=message):
        build(network)


def test_bad_calls(network, images):
    smoothed = Smoothed(network, Gaussian(0.1), num_samples=2)
    for inputs, message in [
        (images * 2, "inputs: expected images in"),
        (images * float("nan"), "got NaN"),
        (images[:0], "an empty batch"),
        (images[0], "shape"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            smoothed.predict(inputs)
    with pytest.raises(ArgumentError, match="num_samples: expected an integer of at least 1, got 0"):
        smoothed.tally(images, num_samples=[0])
    with pytest.raises(ArgumentError, match="model: expected float logits of shape"):
        Smoothed(lambda inputs: inputs, num_samples=1).predict(images)
    with pytest.raises(ArgumentError, match="noise: expected noise of shape"):
        Smoothed(network, lambda inputs, generator: inputs[..., :1], num_samples=1).predict(images)  # noqa: ARG005
    with pytest.raises(ArgumentError, match="vote: expected scores of shape"):
        Smoothed(network, vote=lambda logits: logits[:, :1], num_samples=1).predict(images)


def test_a_function_around_a_noisy_network_votes_with_independent_draws(network, images):
    """What is no module can't be looked into: one draw a pass, unless the user says that more are right."""
    inject(network, weights=PNI())
    wrapped = load(network.forward)
    for model, options in [
        (network.forward, {}),
        (wrapped, {}),
        (Fast(wrapped), {}),
        (network, {"pack_draws": False}),
    ]:
        rows = []
        handle = network[0].register_forward_pre_hook(lambda _, args, rows=rows: rows.append(len(args[0])))
        Smoothed(model, num_samples=5, stop=None, **options).predict(images[:2])
        handle.remove()
        assert rows == [2] * 5


def test_noise_that_is_switched_off_stays_off(noisy_network, images):
    smoothed = Smoothed(noisy_network, None, vote="soft", num_samples=3, seed=0)
    with noiseless(noisy_network):
        mean = smoothed(images)
        assert torch.allclose(mean, noisy_network(images).softmax(1), atol=1e-6)
    assert not torch.allclose(mean, smoothed(images), atol=1e-4)


def test_the_members_of_an_ensemble_have_their_own_noise():
    """Layers are numbered in the model that draws, wherever their noise came from."""
    first, second = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 3))
    second.load_state_dict(first.state_dict())
    inject(first, weights=PNI()), inject(second, weights=PNI())
    both = nn.ModuleList([first, second])
    with noise_from(both, Keyed(0)):
        assert not torch.equal(first[0].weight, second[0].weight)


def test_activation_noise_needs_the_batch_first(images):
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 2)

        def forward(self, inputs):
            return self.linear(inputs.reshape(-1, 8)).reshape(len(inputs), -1, 2).mean(1)

    folded = Folded()
    inject(folded, activations=PNI())
    with pytest.raises(
        ArgumentError, match="whose first dimension is the batch of 16 rows, got 384 rows in noise layer 1"
    ):
        Smoothed(folded, num_samples=1, chunk_size=16).predict(images)


def test_logits_that_are_not_finite_are_refused(images):
    with pytest.raises(ArgumentError, match="model: expected finite logits, got NaN or infinity"):
        Smoothed(lambda inputs: inputs.mean((2, 3)) / 0 * 0, num_samples=1).predict(images)


def test_a_wrong_number_of_channels_names_the_argument(network, images, labels):
    gray = images[:, :1]
    message = r"inputs: expected the number of channels that the model accepts, got shape \(16, 1, 8, 8\)"
    with pytest.raises(ArgumentError, match=message):
        Smoothed(network, Gaussian(0.1), num_samples=1, chunk_size=16).predict(gray)
    with pytest.raises(ArgumentError, match=message):
        attacks.pgd(network, gray, labels, eps=0.1)


class Twice(nn.Module):
    """A network that calls one layer twice, and tells what came in."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Identity(), []
        self.layer.register_forward_hook(lambda _, args, __: self.seen.append(args[0]))

    def forward(self, inputs):
        return (self.layer(inputs) + self.layer(inputs)).mean((2, 3))


def test_neither_images_nor_noise_of_ones_own_are_written_to(network, images):
    kept, before = torch.full((1, *images.shape[1:]), 0.1), images.clone()
    for noise in (Gaussian(0.1), Gaussian((0.1, 0.2, 0.3)), lambda features, _: kept.expand_as(features)):
        Smoothed(network, noise, num_samples=3, seed=0).predict(images)
        with torch.no_grad():
            NoisyClassifier(network, noise)(images)
    assert torch.equal(images, before)
    assert torch.equal(kept, torch.full_like(kept, 0.1))


class Again(nn.Module):
    """The noise of one layer, called twice, side by side; its inputs are zeros."""

    def __init__(self):
        super().__init__()
        self.noisy = AdditiveLayer(1.0, learned=False)

    def forward(self, inputs):
        zeros = 0 * inputs.flatten(1)
        return torch.cat([self.noisy(zeros), self.noisy(zeros)], 1)


def test_activation_noise_that_is_called_twice_in_a_pass_is_two_noises(images):
    draw, key = NoisyClassifier(Again()), Keyed(3, 2, range(len(images)))
    first, second = draw.with_key(images, key).chunk(2, 1)
    assert torch.equal(first, key.rows(1, first.shape, first))
    assert abs(float((first * second).mean())) < 5 / first.numel() ** 0.5  # independent
    again = draw.with_key(images[1:], Keyed(3, 2, range(1, len(images))))  # each pass, and however it is cut
    assert_close(again, torch.cat([first, second], 1)[1:])


def test_a_layer_that_is_called_twice_has_two_noises(images):
    network = Twice()
    smoothed = Smoothed(network, Gaussian(0.5), layer="layer", num_samples=1, seed=0, pack_draws=True)
    smoothed.predict(images)
    first, second = (seen - images for seen in network.seen)
    assert abs(float((first * second).mean())) < 0.02 < float((first * first).mean())
    plain = Smoothed(lambda inputs: inputs.mean((2, 3)), Gaussian(0.5), num_samples=1, seed=0, pack_draws=True)
    network.seen.clear()
    Smoothed(network, Gaussian(0.5), layer="layer", num_samples=1, seed=0).predict(images)
    assert torch.allclose(network.seen[0], first + images)  # and the same ones again
    assert plain.predict(images).shape == (16,)


def test_noise_at_a_layer_needs_the_batch_first(images):
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, inputs):
            return self.layer(inputs.flatten(2).movedim(2, 0)).mean(0)

    with pytest.raises(
        ArgumentError,
        match="layer: expected a layer whose input has the batch of 16 rows as its first dimension, got 64",
    ):
        Smoothed(Sequence(), Gaussian(0.5), layer="layer", num_samples=1).predict(images)


class TestUnits:
    """Deviations that are likely to be in another unit."""

    def model(self, network, **header):
        network.normalize = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        network.checkpoint_header = header
        return network

    @pytest.mark.parametrize("noise", [Gaussian(0.6), Uniform(1.0), Gaussian((0.1, 0.1, 0.7))])
    def test_more_than_half_of_the_range_is_warned_of(self, network, noise):
        with pytest.warns(
            SigmaWarning, match=r"sigma: \S+ is more than half of the range of a pixel; sigma is in pixel"
        ):
            Smoothed(network, noise)

    @pytest.mark.parametrize("noise", [Gaussian(1.01), Laplace((0.1, 0.1, 8.0))])
    def test_more_than_the_whole_range_is_refused(self, network, noise):
        with pytest.raises(
            ArgumentError, match=r"sigma: expected a standard deviation of at most 1, got (1.01|8); sigma"
        ):
            Smoothed(network, noise)

    def test_the_number_of_the_checkpoint_in_the_other_unit_is_warned_of(self, network):
        model = self.model(network, smoothing={"sigma": 0.06, "sigma_normalized": 0.24})
        with pytest.warns(SigmaWarning, match=r"0.24 in pixel units is the number .* which is 0.06 in pixel units"):
            Smoothed(model, Gaussian(0.24))

    @pytest.mark.parametrize(
        ("noise", "options"),
        [
            (None, {}),
            (Gaussian(0.0), {}),
            (Gaussian(0.5), {}),
            (Gaussian(0.06), {}),  # the same deviation, in the right unit
            (Gaussian.normalized(0.24, (0.25, 0.25, 0.25)), {}),
            (Gaussian(3.0), {"layer": "0"}),  # features have no range
            (lambda inputs: 5 + inputs, {}),
        ],
    )
    def test_what_is_fine(self, network, noise, options):
        model = self.model(network, smoothing={"sigma": 0.06, "sigma_normalized": 0.24})
        Smoothed(model, noise, **options)  # warnings are errors

    def test_both_units_are_shown(self, network):
        assert "sigma=0.06), sigma_normalized=0.24, vote=soft" in repr(
            Smoothed(self.model(network), Gaussian(0.06), vote="soft")
        )
        shown = repr(Smoothed(nn.Flatten(), Gaussian(0.06), vote=by_rank([1, 0.5])))
        assert "normalized" not in shown
        assert "vote=by_rank(1, 0.5)" in shown
