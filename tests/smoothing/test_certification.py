"""PREDICT and CERTIFY against closed forms, exact binomial sums, and classifiers whose probabilities are known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from torch import nn
from torch.testing import assert_close

from smoothed import PNI, Gaussian, Laplace, Smoothed, inject
from smoothed.errors import ArgumentError
from smoothed.rng.seeds import seeded
from smoothed.smoothing.certification import (
    ABSTAIN,
    TooFewSamplesWarning,
    certificate_from_counts,
    certified_radius,
    certify_inputs,
    draw_counts,
    fewest_to_certify,
    fewest_to_predict,
    predict_from_counts,
    predict_or_abstain,
)

SIGMA = 0.25


class Halfspace(nn.Module):
    """Class 1 where w.x > 1 with w = (1, 2, 2) / 3: under N(0, sigma^2) its probability is Phi((w.x - 1) / sigma)."""

    weight = torch.tensor([1.0, 2.0, 2.0]) / 3

    def margin(self, inputs):
        return inputs.flatten(1) @ self.weight - 1

    def forward(self, inputs):
        margin = self.margin(inputs)
        return torch.stack([torch.zeros_like(margin), margin], 1)


def at_distance(distances):
    """Images (N, 3, 1, 1) of class 1 at these L2 distances from the boundary of `Halfspace`."""
    return (Halfspace.weight * (1 + torch.as_tensor(distances))[:, None]).view(-1, 3, 1, 1)


def smoothed(model=None, noise=None, **options):
    return Smoothed(model or Halfspace(), noise or Gaussian(SIGMA), pack_draws=True, chunk_size=4096, **options)


def counts(*rows):
    return torch.tensor(rows, dtype=torch.int64)


class TestCounts:
    """CERTIFY and PREDICT on counts."""

    @pytest.mark.parametrize("hits", [60, 80, 99, 100])
    @pytest.mark.parametrize("alpha", [0.001, 0.05, 0.4])
    def test_the_bound_is_where_as_many_hits_have_probability_alpha(self, hits, alpha):
        """Clopper and Pearson's definition; all hits: alpha^(1/n)."""
        certificate = certificate_from_counts(counts([0, 1]), counts([100 - hits, hits]), sigma=SIGMA, alpha=alpha)
        bound = certificate.lower_bound.item()
        assert binom.sf(hits - 1, 100, bound) == pytest.approx(alpha, rel=1e-6)
        if hits == 100:
            assert bound == pytest.approx(alpha ** (1 / 100), abs=1e-10)
        if bound > 0.5:
            assert certificate.classes.item() == 1
            assert certificate.radius.item() == pytest.approx(SIGMA * norm.ppf(bound), rel=1e-12)
        else:
            assert certificate.classes.item() == ABSTAIN

    @pytest.mark.parametrize("probability", [0.55, 0.7, 0.9, 0.95])
    @pytest.mark.parametrize("alpha", [0.001, 0.05])
    def test_the_claim_is_false_with_probability_alpha_at_most(self, probability, alpha):
        """All outcomes of 200 draws, by their probability: a radius beyond sigma * Phi^-1(p), a wrong class."""
        hits = torch.arange(201)
        estimation = torch.stack([200 - hits, hits], 1)
        true_radius = SIGMA * norm.ppf(probability)
        right, wrong = (
            certificate_from_counts(counts(chosen).expand(201, 2), estimation, sigma=SIGMA, alpha=alpha)
            for chosen in ([0, 1], [1, 0])
        )
        weights = binom.pmf(hits.numpy(), 200, probability)
        assert alpha / 4 < weights[right.radius.numpy() > true_radius].sum() <= alpha
        assert weights[~wrong.abstained.numpy()].sum() <= alpha

    def test_the_radius_tends_to_the_true_one(self):
        """Counts as expected at p = 0.9; the bound is 3.1 deviations below p, or somewhat more where draws are few."""
        previous = 0.0
        for draws in (100, 10_000, 1_000_000):
            hits = round(0.9 * draws)
            certificate = certificate_from_counts(counts([0, 1]), counts([draws - hits, hits]), sigma=1.0, alpha=0.001)
            assert previous < certificate.radius.item() < norm.ppf(0.9)
            assert certificate.lower_bound.item() == pytest.approx(0.9, abs=4.2 * math.sqrt(0.09 / draws))
            previous = certificate.radius.item()

    def test_the_largest_radius_of_a_hundred_thousand_draws(self):
        """sigma * Phi^-1(0.001^(1e-5)) = 3.81 sigma: the "about 4 sigma" of Cohen et al., section 3.2.2."""
        certificate = certificate_from_counts(counts([5, 0]), counts([100_000, 0]), sigma=0.5, alpha=0.001)
        assert certificate.radius.item() == pytest.approx(0.5 * norm.ppf(0.001**1e-5), rel=1e-9)
        assert certificate.radius.item() == pytest.approx(0.5 * 3.81, abs=0.005)

    def test_the_selection_alone_chooses(self):
        """The class is not changed by what the estimation's draws say; a majority of less than half is none."""
        selection = counts([3, 1, 0], [0, 2, 2], [1, 0, 0], [4, 0, 0])
        estimation = counts([0, 100, 0], [0, 100, 0], [49, 26, 25], [100, 0, 0])
        certificate = certificate_from_counts(selection, estimation, sigma=SIGMA, alpha=0.01)
        assert certificate.classes.tolist() == [ABSTAIN, 1, ABSTAIN, 0]
        assert certificate.lower_bound[0] == 0
        assert certificate.abstained.tolist() == [True, False, True, False]
        assert (certificate.radius == 0).tolist() == [True, False, True, False]
        assert certificate.num_samples.tolist() == [100] * 4
        assert torch.equal(certificate.counts, estimation)

    def test_images_may_have_different_numbers_of_draws(self):
        both = certificate_from_counts(counts([1, 0], [1, 0]), counts([50, 0], [500, 2]), sigma=SIGMA, alpha=0.01)
        for row, estimation in enumerate(([50, 0], [500, 2])):
            alone = certificate_from_counts(counts([1, 0]), counts(estimation), sigma=SIGMA, alpha=0.01)
            assert both.radius[row] == alone.radius[0]

    def test_radius_of_probabilities(self):
        probability = torch.tensor([0.0, 0.3, 0.5, 0.6, 0.999], dtype=torch.float64)
        expected = [0.0, 0.0, 0.0, 2 * norm.ppf(0.6), 2 * norm.ppf(0.999)]
        assert certified_radius(probability, 2.0).tolist() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize(("first", "second"), [(20, 0), (15, 5), (12, 8), (10, 10), (11, 0), (10, 0)])
    def test_predict_is_the_sign_test(self, first, second):
        """Two sides of a fair coin: p = min(1, 2 P[B >= n1])."""
        alpha = 0.05 if second else 0.001
        p_value = min(1.0, 2 * binom.sf(first - 1, first + second, 0.5))
        expected = 1 if p_value <= alpha else ABSTAIN
        assert predict_from_counts(counts([second, first, 0]), alpha).tolist() == [expected]

    def test_predict_names_a_wrong_class_with_probability_alpha_at_most(self):
        first = torch.arange(41)
        classes = predict_from_counts(torch.stack([first, 40 - first], 1), 0.05).numpy()
        for probability in (0.5, 0.55, 0.7):
            assert binom.pmf(first.numpy(), 40, probability)[classes == 1].sum() <= 0.05

    def test_a_tie_is_abstained_on(self):
        assert predict_from_counts(counts([500, 500, 0], [0, 7, 7], [500, 400, 100]), 0.01).tolist() == [-1, -1, 0]
        tied = certificate_from_counts(counts([5, 5]), counts([500, 500]), sigma=SIGMA, alpha=0.01)
        assert tied.classes.tolist() == [ABSTAIN]

    @pytest.mark.parametrize("alpha", [0.4, 0.05, 1 / 16, 0.001, 1e-9])
    def test_the_fewest_draws(self, alpha):
        fewest = fewest_to_certify(alpha)
        assert alpha ** (1 / fewest) > 0.5 >= alpha ** (1 / (fewest - 1))
        fewest = fewest_to_predict(alpha)
        assert 2.0 ** (1 - fewest) <= alpha < 2.0 ** (2 - fewest)
        certain = certificate_from_counts(counts([1, 0]), counts([fewest_to_certify(alpha), 0]), sigma=1.0, alpha=alpha)
        assert certain.classes.item() == 0
        assert predict_from_counts(counts([fewest, 0], [fewest - 1, 0]), alpha).tolist() == [0, ABSTAIN]


class TestHalfspace:
    """A linear classifier, whose smoothed version is robust to exactly the distance to its boundary."""

    def test_the_radius_exceeds_the_distance_with_frequency_alpha(self):
        """300 images at one distance, each with noise of its own: binomial(300, at most 0.1), four deviations."""
        distance, alpha = 0.3, 0.1
        images = at_distance(torch.full((300,), distance))
        certificate = certify_inputs(smoothed(seed=1), images, alpha=alpha, selection_samples=15, num_samples=60)
        assert (certificate.classes == 1).all()
        false = (certificate.radius > distance).sum().item()
        assert 300 * alpha / 4 < false < 300 * alpha + 4 * math.sqrt(300 * alpha * (1 - alpha))

    def test_the_radius_comes_close_to_the_distance(self):
        """Below it, and with more draws closer; alpha = 1e-9 keeps the bound 6 deviations of the share away."""
        distances = torch.linspace(0.2, 0.4, 5)
        previous = torch.zeros(5, dtype=torch.float64)
        for draws in (200, 1000, 4000):
            certificate = certify_inputs(smoothed(seed=0), at_distance(distances), alpha=1e-9, num_samples=draws)
            assert (certificate.radius > previous).all()
            assert (certificate.radius < distances).all()
            previous = certificate.radius
        assert (previous > 0.78 * distances).all()

    def test_both_classes(self):
        assert certify_inputs(smoothed(seed=0), at_distance([-0.4, 0.4])).classes.tolist() == [0, 1]

    def test_the_boundary_is_abstained_on(self):
        """Both classes have probability 1/2: 100 images, a claim on each with probability 0.05 at most."""
        images = at_distance(torch.zeros(100))
        for classes in (
            certify_inputs(smoothed(seed=0), images, alpha=0.05, selection_samples=5, num_samples=60).classes,
            predict_or_abstain(smoothed(seed=0), images, alpha=0.05, num_samples=60),
        ):
            assert (classes != ABSTAIN).sum() < 100 * 0.05 + 4 * math.sqrt(100 * 0.05 * 0.95)

    def test_predict(self):
        classes = predict_or_abstain(smoothed(seed=0), at_distance([-0.2, 0.0, 0.2]), num_samples=500)
        assert classes.tolist() == [0, ABSTAIN, 1]

    def test_predict_takes_any_noise(self):
        images = at_distance([-0.2, 0.2])
        for noise in (Laplace(SIGMA), Gaussian(0.0), lambda inputs, generator: torch.zeros_like(inputs)):  # noqa: ARG005
            assert predict_or_abstain(smoothed(noise=noise, seed=0), images, num_samples=300).tolist() == [0, 1]

    def test_a_deviation_for_each_channel(self):
        """The margin has deviation |sigma * w|: the distance is m, in the noise's metric m / |sigma * w|."""
        sigma = (0.1, 0.3, 0.2)
        distances = torch.tensor([0.2, 0.3, 0.4])
        deviation = (torch.tensor(sigma) * Halfspace.weight).norm()
        certificate = certify_inputs(smoothed(noise=Gaussian(sigma), seed=0), at_distance(distances), alpha=1e-9)
        assert certificate.sigma == 0.1
        share = certificate.counts[:, 1] / certificate.num_samples
        known = torch.tensor(norm.cdf(distances / deviation), dtype=torch.float32)
        assert ((share - known).abs() < 4.5 * (known * (1 - known) / 1000).sqrt()).all()
        metric = certificate.radius / certificate.sigma
        assert (metric < distances / deviation).all()
        assert (metric > 0.4 * distances / deviation).all()
        assert (certificate.radius < distances).all()


class TestNoiseInside:
    """One pixel x, weight noise: the margin is (d + c n)(x + eta) + b with two independent normals n and eta."""

    D, B, ALPHA = 2.0, -0.6, 1e-6

    @pytest.fixture
    def noisy(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
        with torch.no_grad():
            model[1].weight.copy_(torch.tensor([[-self.D / 2], [self.D / 2]]))
            model[1].bias.copy_(torch.tensor([0.0, self.B]))
        inject(model, weights=PNI(initial=0.5))
        return model.eval()

    def probability(self, pixel):
        """P[class 1]: the integral over eta of Phi((d (x + eta) + b) / (c |x + eta|))."""
        scale = 0.5 * self.D  # each weight's is 0.5 * std((-d/2, d/2)) = 0.5 * d / sqrt(2)
        eta = np.linspace(-8, 8, 20_001) * SIGMA
        value = pixel + eta
        given = norm.cdf((self.D * value + self.B) / (scale * np.abs(value) + 1e-300))
        return np.trapezoid(given * norm.pdf(eta / SIGMA) / SIGMA, eta)

    @pytest.mark.slow
    def test_the_certificate_is_of_both_noises(self, noisy):
        pixels = torch.linspace(0.1, 0.95, 8)
        model = Smoothed(noisy, Gaussian(SIGMA), seed=0)
        certificate = certify_inputs(
            model, pixels.view(-1, 1, 1, 1), alpha=self.ALPHA, selection_samples=20, num_samples=500
        )
        known = np.array([self.probability(pixel) for pixel in pixels.tolist()])
        share = certificate.counts[:, 1].numpy() / 500
        assert (np.abs(share - known) < 4.5 * np.sqrt(known * (1 - known) / 500)).all()
        mean = norm.cdf((self.D * pixels.numpy() + self.B) / (self.D * SIGMA))  # of the network without noise
        assert np.abs(known - mean).max() > 0.05
        assert (certificate.classes == 1).any()
        for pixel, radius, winner in zip(
            pixels.tolist(), certificate.radius.tolist(), certificate.classes.tolist(), strict=True
        ):
            ends = [self.probability(pixel + sign * radius) for sign in (-1, 1)]
            assert winner == ABSTAIN or min(ends if winner == 1 else [1 - end for end in ends]) > 0.5

    def test_every_vote_has_weights_of_its_own(self, noisy):
        """Were a call's weights drawn once, its share would be 0 or 1 without input noise to speak of."""
        model = Smoothed(noisy, Gaussian(1e-6), seed=0)
        (counted,) = draw_counts(model, torch.full((1, 1, 1, 1), 0.3), (200,))
        scale = 0.5 * self.D
        known = norm.cdf((self.D * 0.3 + self.B) / (scale * 0.3))
        assert known == 0.5
        assert abs(counted[0, 1].item() / 200 - known) < 4.5 * math.sqrt(0.25 / 200)


class TestDraws:
    def test_groups_are_parts_of_one_tally(self, network, images):
        model = Smoothed(network, Gaussian(0.2))
        groups = draw_counts(model, images, (3, 4, 2), generator=seeded(5))
        tally = model.tally(images, [3, 7, 9], votes=["prediction"], generator=seeded(5))["prediction"]
        for group, size in zip(groups, (3, 4, 2), strict=True):
            assert group.dtype == torch.int64
            assert group.sum(1).tolist() == [size] * len(images)
        ends = [tally[end].scores.long() for end in (3, 7, 9)]
        assert torch.equal(groups[0], ends[0])
        assert torch.equal(groups[0] + groups[1], ends[1])
        assert torch.equal(sum(groups), ends[2])

    def test_the_generator_decides(self, network, images):
        model = Smoothed(inject_into(network), Gaussian(0.2))
        options = {"alpha": 0.05, "selection_samples": 3, "num_samples": 20}
        first, second, other = (
            certify_inputs(model, images, generator=seeded(seed), **options).counts for seed in (1, 1, 2)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first, other)

    def test_parts_of_a_set_are_certified_as_the_whole(self, network, images):
        model = Smoothed(network, Gaussian(0.2))
        options = {"alpha": 0.05, "selection_samples": 3, "num_samples": 20}
        whole = certify_inputs(model, images, generator=seeded(1), **options)
        part = certify_inputs(model, images[6:], generator=seeded(1), first_image=6, **options)
        assert_close(part.radius, whole.radius[6:])
        assert torch.equal(part.counts, whole.counts[6:])

    def test_the_vote_of_the_classifier_does_not_matter(self, network, images):
        options = {"alpha": 0.05, "selection_samples": 3, "num_samples": 20}
        hard, soft = (
            certify_inputs(Smoothed(network, Gaussian(0.2), vote=vote, num_samples=samples, seed=0), images, **options)
            for vote, samples in (("prediction", 4), ("soft", 9))
        )
        assert torch.equal(hard.counts, soft.counts)

    def test_the_model_is_left_as_it_was_found(self, network, images):
        network.train()
        certify_inputs(Smoothed(network, Gaussian(0.2)), images, alpha=0.05, selection_samples=2, num_samples=10)
        assert all(module.training for module in network.modules())
        assert all(parameter.grad is None for parameter in network.parameters())

    def test_memory_is_bounded_by_the_chunk(self, network, images):
        rows = []
        network.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
        certify_inputs(
            Smoothed(network, Gaussian(0.1), chunk_size=10), images, alpha=0.05, selection_samples=2, num_samples=10
        )
        assert max(rows) <= 10
        assert sum(rows) == 12 * len(images)


class TestWarnings:
    def test_certify_warns_where_alpha_is_out_of_reach(self):
        image = at_distance([0.5])
        with pytest.warns(TooFewSamplesWarning, match=r"num_samples: 9 draws abstain on every image at alpha 0.001"):
            certificate = certify_inputs(smoothed(seed=0), image, num_samples=9)
        assert certificate.abstained.all()
        assert certify_inputs(smoothed(noise=Gaussian(0.01)), image, num_samples=10).radius > 0

    def test_predict_warns_where_alpha_is_out_of_reach(self):
        image = at_distance([0.5])
        with pytest.warns(TooFewSamplesWarning, match="use 11 or more"):
            assert predict_or_abstain(smoothed(seed=0), image, num_samples=10).tolist() == [ABSTAIN]
        assert predict_or_abstain(smoothed(noise=Gaussian(0.01)), image, num_samples=11).tolist() == [1]


def inject_into(network):
    inject(network, weights=PNI())
    return network


class TestErrors:
    @pytest.mark.parametrize(
        ("noise", "match"),
        [
            (Laplace(0.1), "noise: expected Gaussian noise on the input, got Laplace"),
            (lambda inputs, generator: inputs, "noise: expected Gaussian"),  # noqa: ARG005
            (Gaussian(0.0), "sigma: expected a standard deviation above 0 on every channel, got 0.0"),
            (Gaussian((0.1, 0.0, 0.1)), "sigma: expected a standard deviation above 0 on every channel"),
        ],
    )
    def test_noise(self, noise, match):
        with pytest.raises(ArgumentError, match=match):
            certify_inputs(smoothed(noise=noise), at_distance([0.1]))

    def test_no_noise(self):
        with pytest.raises(ArgumentError, match=r"noise: expected Gaussian noise on the input, got None"):
            certify_inputs(Smoothed(Halfspace()), at_distance([0.1]))

    def test_noise_at_a_hidden_layer(self, network, images):
        with pytest.raises(ArgumentError, match=r"layer: expected None \(noise on the input\), got noise at layer '4'"):
            certify_inputs(Smoothed(network, Gaussian(0.1), layer="4"), images)

    @pytest.mark.parametrize("alpha", [0.0, 0.5, 1e-13, -0.1, float("nan"), 1, "0.1"])
    def test_alpha(self, alpha):
        for call in (certify_inputs, predict_or_abstain):
            with pytest.raises(ArgumentError, match=r"alpha: expected a number in \[1e-12, 0.5\)"):
                call(smoothed(), at_distance([0.1]), alpha=alpha)

    @pytest.mark.parametrize("option", ["selection_samples", "num_samples"])
    def test_draws(self, option):
        with pytest.raises(ArgumentError, match=f"{option}: expected an integer of at least 1, got 0"):
            certify_inputs(smoothed(), at_distance([0.1]), **{option: 0})
        with pytest.raises(ArgumentError, match="num_samples: expected at most 16777216 draws in total, got 1677"):
            certify_inputs(smoothed(), at_distance([0.1]), **{option: 2**24 + 1})

    def test_images(self):
        with pytest.raises(ArgumentError, match="inputs: expected images in"):
            certify_inputs(smoothed(), 2 + at_distance([0.1]))

    def test_counts(self):
        good = counts([3, 4])
        for bad, match in [
            (good.float(), r"expected int64 counts of shape \(N, K\), K >= 2, got torch.float32"),
            (counts([3]), "counts: expected int64 counts"),
            (counts([0, 0]), "expected counts of at least one draw per image"),
            (counts([3, -1]), "expected counts of at least one draw per image"),
        ]:
            with pytest.raises(ArgumentError, match=match):
                predict_from_counts(bad, 0.01)
        with pytest.raises(ArgumentError, match="selection: expected counts of at least one draw"):
            certificate_from_counts(counts([0, 0]), good, sigma=1.0, alpha=0.01)
        with pytest.raises(ArgumentError, match=r"estimation: expected the shape of selection, \(1, 2\), got \(2, 2\)"):
            certificate_from_counts(good, counts([3, 4], [3, 4]), sigma=1.0, alpha=0.01)
        with pytest.raises(ArgumentError, match=r"sigma: expected a finite standard deviation above 0, got 0.0"):
            certificate_from_counts(good, good, sigma=0.0, alpha=0.01)
