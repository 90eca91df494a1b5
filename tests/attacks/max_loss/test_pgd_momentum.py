"""PGD along accumulated gradients, against plain loops in torch and closed forms."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from smoothed.attacks import expected_loss, pgd
from smoothed.injection import PNI, inject, noise_from
from smoothed.rng.rows import RowGenerator
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh

norms = pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 0.4)])
directions = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
memories = pytest.mark.parametrize(
    "memory",
    [{"momentum": 1.0}, {"momentum": 0.6}, {"momentum": 0.9, "unit_gradients": True}],
    ids=["sum", "decay", "decay of unit gradients"],
)


@pytest.fixture
def batch(network, images, labels):
    """A noisy network and images in float64, in which rounding changes no sign."""
    network = network.double()
    inject(network, weights=PNI())
    return network, images.double(), labels


def lengths(tensor):
    return tensor.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def step_by_hand(attacked, inputs, ascent, *, eps, step_size, norm):
    """One step along `ascent`, back into the ball, back into [0, 1]."""
    if norm == "linf":
        delta = (attacked + step_size * ascent.sign() - inputs).clamp(-eps, eps)
    else:
        delta = attacked + step_size * ascent / lengths(ascent) - inputs
        delta = torch.where(lengths(delta) > eps, delta * eps / lengths(delta), delta)
    return (inputs + delta).clamp(0, 1)


def paper_code(network, inputs, labels, *, start, steps, targeted, draws=1, **step):
    """The paper's code: the mean loss of the batch, and a gradient of the images that no step clears."""
    attacked = start.clone().requires_grad_()
    for _ in range(steps):
        for _ in range(draws):
            (functional.cross_entropy(network(attacked), labels) / draws).backward()
        network.zero_grad()
        sign = -1 if targeted else 1
        attacked.data = step_by_hand(attacked.data, inputs, sign * attacked.grad, **step)
    return attacked.detach()


def decayed(network, inputs, labels, *, start, steps, targeted, momentum, unit_gradients=False, **step):
    """The weighted sum written out: at step t, gradient s has weight momentum^(t - s)."""
    attacked, gradients = start, []
    for _ in range(steps):
        leaf = attacked.clone().requires_grad_()
        loss = functional.cross_entropy(network(leaf), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(-loss if targeted else loss, leaf)
        gradients.append(gradient / gradient.abs().sum((1, 2, 3), keepdim=True) if unit_gradients else gradient)
        weights = [momentum**age for age in reversed(range(len(gradients)))]
        ascent = sum(weight * each for weight, each in zip(weights, gradients, strict=True))
        attacked = step_by_hand(attacked, inputs, ascent, **step)
    return attacked


def both(network, attacks):
    """The results of attacks that see the same noise."""
    results = []
    for attack in attacks:
        with noise_from(network, Fresh(seeded(2))):
            results.append(attack())
    return results


class TestByHand:
    @norms
    @directions
    @pytest.mark.parametrize("draws", [1, 3])
    def test_momentum_1_is_the_papers_code(self, norm, eps, targeted, draws, batch):
        network, images, _ = batch
        noise = torch.rand(images.shape, dtype=images.dtype, generator=seeded(1))
        start = (images + 0.3 * eps * noise / (1 if norm == "linf" else 14)).clamp(0, 1)
        options = {"eps": eps, "step_size": eps / 4, "steps": 7, "norm": norm, "targeted": targeted, "start": start}
        attacked, expected, cleared = both(
            network,
            [
                lambda: pgd(*batch, momentum=1.0, objective=expected_loss(draws), **options),
                lambda: paper_code(*batch, draws=draws, **options),
                lambda: pgd(*batch, objective=expected_loss(draws), **options),
            ],
        )
        assert_close(attacked, expected, rtol=0, atol=1e-9)
        assert (attacked - cleared).abs().max() > eps / 100

    @norms
    @directions
    @memories
    def test_weighted_sums(self, norm, eps, targeted, memory, batch):
        network, images, _ = batch
        options = {"eps": eps, "step_size": eps / 3, "steps": 6, "norm": norm, "targeted": targeted, **memory}
        attacked, expected = both(
            network,
            [lambda: pgd(*batch, random_start=False, **options), lambda: decayed(*batch, start=images, **options)],
        )
        assert_close(attacked, expected, rtol=0, atol=1e-9)

    @norms
    @pytest.mark.parametrize("unit_gradients", [False, True])
    def test_without_momentum_it_is_pgd(self, norm, eps, unit_gradients, batch):
        options = {"eps": eps, "norm": norm, "restarts": 2}
        attacked, expected = both(
            batch[0],
            [
                lambda: pgd(*batch, momentum=0.0, unit_gradients=unit_gradients, generator=RowGenerator(1), **options),
                lambda: pgd(*batch, generator=RowGenerator(1), **options),
            ],
        )
        assert_close(attacked, expected, rtol=0, atol=1e-9)

    @norms
    @memories
    def test_each_restart_begins_without_memory(self, norm, eps, memory, network, images, labels):
        """The best of two attacks one after the other with one generator; an end that kept its memory would differ."""
        network, images, generator = network.double(), images.double(), seeded(5)
        options = {"eps": eps, "norm": norm, "steps": 3, "step_size": eps / 8, **memory}
        ends = torch.stack([pgd(network, images, labels, generator=generator, **options) for _ in range(2)])
        losses = torch.stack([functional.cross_entropy(network(end), labels, reduction="none") for end in ends])
        best = losses.argmax(0)
        assert len(best.unique()) == 2
        together = pgd(network, images, labels, restarts=2, generator=seeded(5), **options)
        assert_close(together, ends[best, range(len(images))], rtol=0, atol=1e-9)


class TestClosedForms:
    @directions
    @memories
    def test_linear_optimum(self, targeted, memory, generator):
        """Two classes: the slope is w_other - w_label everywhere, so that every sum of gradients points there, too."""
        weight = torch.randn(2, 12, generator=generator)
        inputs, labels = 0.3 + 0.4 * torch.rand(8, 3, 2, 2, generator=generator), torch.tensor([0, 1] * 4)
        towards = labels if targeted else 1 - labels
        slope = (weight[towards] - weight[1 - towards]).view(-1, 3, 2, 2)
        for norm, optimum, steps in (
            ("linf", inputs + 0.1 * slope.sign(), 10),
            ("l2", inputs + 0.1 * slope / lengths(slope), 70),
        ):
            assert optimum.min() > 0
            assert optimum.max() < 1
            for random_start in (False, True):
                attacked = pgd(
                    lambda images: images.flatten(1) @ weight.T,
                    inputs,
                    labels,
                    eps=0.1,
                    steps=steps,
                    norm=norm,
                    targeted=targeted,
                    random_start=random_start,
                    generator=generator,
                    **memory,
                )
                assert_close(attacked, optimum, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
    def test_the_sum_averages_the_noise_of_the_gradients(self, momentum):
        """Gradients 0.5 + n with n ~ N(0, 1) in every pixel, and steps that cross the ball.

        The last sum of nine decides the sign. Its mean is 0.5 * sum_i momentum^i and its variance
        sum_i momentum^(2 i), so that a pixel rises with probability Phi(mean / deviation).
        """
        generator = seeded(3)

        def objective(model, inputs, labels):  # noqa: ARG001 - a linear function with noise, whatever the model
            return (inputs * (0.5 + torch.randn(inputs.shape, generator=generator))).flatten(1).sum(1)

        inputs, steps = torch.full((16, 3, 32, 32), 0.5), 9
        attacked = pgd(
            lambda images: images.flatten(1),
            inputs,
            torch.zeros(16, dtype=torch.int64),
            eps=0.1,
            step_size=0.2,
            steps=steps,
            momentum=momentum,
            objective=objective,
        )
        weights = torch.tensor([momentum**age for age in range(steps)])
        expected = torch.special.ndtr(0.5 * weights.sum() / weights.norm())
        # Five standard deviations of a share of 49,152 pixels.
        assert_close((attacked > 0.5).float().mean(), expected, rtol=0, atol=5 * (0.25 / 49152) ** 0.5)

    @norms
    @memories
    def test_gradients_of_zero_and_tiny_gradients(self, norm, eps, memory):
        """No slope moves nothing, without NaN; a slope of 1e-30 is followed as any other in L-inf."""
        inputs, labels = torch.full((2, 3, 4, 4), 0.5), torch.tensor([0, 0])
        options = {"eps": eps, "norm": norm, "random_start": False, **memory}
        model = lambda images: images.flatten(1)  # noqa: E731
        still = pgd(model, inputs, labels, objective=lambda _, images, __: 0 * images.flatten(1).sum(1), **options)
        assert torch.equal(still, inputs)
        if norm == "linf":
            up = pgd(model, inputs, labels, objective=lambda _, images, __: 1e-30 * images.flatten(1).sum(1), **options)
            assert_close(up, inputs + eps)


class TestManners:
    @settings(max_examples=30, derandomize=True)
    @given(
        eps=st.floats(0, 2),
        step=st.one_of(st.none(), st.floats(0, 4)),
        steps=st.integers(1, 4),
        norm=st.sampled_from(["linf", "l2"]),
        targeted=st.booleans(),
        momentum=st.floats(0, 2),
        unit_gradients=st.booleans(),
        seed=st.integers(0, 2**31),
    )
    def test_never_leaves_the_ball_or_the_range(self, eps, step, steps, norm, targeted, momentum, unit_gradients, seed):
        generator = seeded(seed)
        weight = torch.randn(3, 12, generator=generator)
        inputs = torch.rand(4, 3, 2, 2, generator=generator).mul(1.4).sub(0.2).clamp(0, 1)  # some at the ends
        attacked = pgd(
            lambda images: images.flatten(1) @ weight.T,
            inputs,
            torch.tensor([0, 1, 2, 0]),
            eps=eps,
            step_size=step,
            steps=steps,
            norm=norm,
            targeted=targeted,
            momentum=momentum,
            unit_gradients=unit_gradients,
            generator=generator,
        )
        delta = (attacked - inputs).flatten(1)
        assert (delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)).max() <= eps + 1e-5
        assert attacked.min() >= 0
        assert attacked.max() <= 1

    @norms
    @memories
    def test_an_image_does_not_depend_on_its_batch(self, norm, eps, memory, network, images, labels):
        """With a radius of its own and a start that follows the image, in float64."""
        network, images = network.double(), images.double()
        radii = torch.linspace(0, 2 * eps, len(images))
        options = {"steps": 4, "norm": norm, **memory}
        whole = pgd(network, images, labels, eps=radii, generator=RowGenerator(9), **options)
        parts = [
            pgd(network, images[rows], labels[rows], eps=radii[rows], generator=RowGenerator(9, rows.start), **options)
            for rows in (slice(0, 5), slice(5, 16))
        ]
        assert_close(torch.cat(parts), whole, rtol=0, atol=1e-9)

    @norms
    @directions
    @memories
    def test_beats_random_noise_and_leaves_the_model_as_it_was(
        self, norm, eps, targeted, memory, network, images, labels, generator
    ):
        """Twenty tries with every pixel at its end (L2: on the sphere), the best for each image."""
        network.train()
        state, before = copy.deepcopy(network.state_dict()), torch.get_rng_state()
        attacked = pgd(network, images, labels, eps=eps, norm=norm, targeted=targeted, generator=seeded(1), **memory)
        again = pgd(network, images, labels, eps=eps, norm=norm, targeted=targeted, generator=seeded(1), **memory)
        assert torch.equal(attacked, again)
        assert torch.equal(torch.get_rng_state(), before)
        assert all(module.training for module in network.modules())
        assert all(parameter.grad is None for parameter in network.parameters())
        assert not attacked.requires_grad
        for name, value in network.state_dict().items():
            assert torch.equal(value, state[name]), name

        def reached(inputs):
            loss = functional.cross_entropy(network(inputs), labels, reduction="none")
            return -loss if targeted else loss

        network.eval()
        tries = []
        for _ in range(20):
            noise = torch.randn(images.shape, generator=generator)
            noise = eps * (noise.sign() if norm == "linf" else noise / lengths(noise))
            tries.append(reached((images + noise).clamp(0, 1)))
        assert (reached(attacked) > torch.stack(tries).amax(0)).all()
