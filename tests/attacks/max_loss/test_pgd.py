"""PGD against closed forms on a linear model, and for its manners; tests/peers has other libraries beside it."""

import copy
import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from refusing import check_refusals
from smoothed.attacks import expected_probabilities, one_draw_loss, pgd
from smoothed.attacks.ball import ball
from smoothed.errors import ArgumentError
from smoothed.injection import PNI, inject, noise_from, noiseless
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh

EPS = 8 / 255
STEPS = 7
norms = pytest.mark.parametrize("norm", ["linf", "l2"])
directions = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])


def radius(norm):
    """A budget of about the same strength in either norm, for 192 pixels."""
    return EPS if norm == "linf" else 0.4


def loss(model, inputs, labels):
    return functional.cross_entropy(model(inputs), labels, reduction="none")


def distance(attacked, inputs, norm):
    difference = (attacked - inputs).flatten(1)
    return difference.abs().amax(1) if norm == "linf" else difference.norm(dim=1)


class TestLinear:
    """f(x) = W x + b with two classes: the loss grows along w_other - w_label, whatever x."""

    @pytest.fixture
    def linear(self):
        with torch.random.fork_rng():
            torch.manual_seed(4)
            return nn.Sequential(nn.Flatten(), nn.Linear(12, 2))

    @pytest.fixture
    def batch(self, generator):
        return torch.rand(8, 3, 2, 2, generator=generator), torch.tensor([0, 1] * 4)

    def slope(self, linear, labels, *, targeted):
        weight = linear[1].weight.detach()
        towards = labels if targeted else 1 - labels
        return (weight[towards] - weight[1 - towards]).view(-1, 3, 2, 2)

    @directions
    def test_linf_optimum(self, linear, batch, targeted, generator):
        """Every pixel at its own end of [x - eps, x + eps] and [0, 1]."""
        inputs, labels = batch
        optimum = (inputs + 0.1 * self.slope(linear, labels, targeted=targeted).sign()).clamp(0, 1)
        assert ((optimum == 0) | (optimum == 1)).any()
        for random_start in (False, True):
            # From the far end it is 2 eps to the optimum: eight steps of eps / 4, and some more for what clips.
            attacked = pgd(
                linear,
                inputs,
                labels,
                eps=0.1,
                steps=10,
                targeted=targeted,
                random_start=random_start,
                generator=generator,
            )
            assert_close(attacked, optimum, rtol=0, atol=1e-6)

    @directions
    def test_l2_optimum(self, linear, batch, targeted, generator):
        """eps along the gradient, where no pixel reaches 0 or 1."""
        inputs, labels = 0.3 + 0.4 * batch[0], batch[1]
        slope = self.slope(linear, labels, targeted=targeted)
        optimum = inputs + 0.25 * slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        assert optimum.min() > 0
        assert optimum.max() < 1
        still = pgd(linear, inputs, labels, eps=0.25, steps=4, norm="l2", targeted=targeted, random_start=False)
        assert_close(still, optimum, rtol=0, atol=1e-5)
        # What lies across the gradient shrinks by 1 / 1.25 a step at the boundary: 1e-6 after sixty.
        started = pgd(linear, inputs, labels, eps=0.25, steps=70, norm="l2", targeted=targeted, generator=generator)
        assert_close(started, optimum, rtol=0, atol=1e-5)

    def test_a_loss_without_slope_moves_nothing(self, batch):
        """The gradient is 0: both norms stay where they began, without NaN."""
        constant = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        constant[1].weight.data.zero_()
        for norm in ("linf", "l2"):
            assert torch.equal(pgd(constant, *batch, eps=0.1, norm=norm, random_start=False), batch[0])


class TestBudget:
    @settings(max_examples=40, derandomize=True)
    @given(
        eps=st.floats(0, 2),
        step=st.one_of(st.none(), st.floats(0, 4)),
        steps=st.integers(1, 4),
        norm=st.sampled_from(["linf", "l2"]),
        targeted=st.booleans(),
        random_start=st.booleans(),
        seed=st.integers(0, 2**31),
    )
    def test_never_leaves_the_ball_or_the_range(self, eps, step, steps, norm, targeted, random_start, seed):
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
            random_start=random_start,
            generator=generator,
        )
        assert attacked.shape == inputs.shape
        assert attacked.dtype == inputs.dtype
        assert distance(attacked, inputs, norm).max() <= eps + 1e-5
        assert attacked.min() >= 0
        assert attacked.max() <= 1

    @norms
    def test_a_start_outside_is_brought_back(self, norm, network, images, labels):
        eps = radius(norm)
        attacked = pgd(network, images, labels, eps=eps, step_size=0.0, norm=norm, start=torch.rand_like(images))
        assert distance(attacked, images, norm).max() <= eps + 1e-5
        assert distance(attacked, images, norm).min() > 0.5 * eps

    @norms
    def test_zero_eps_returns_the_inputs(self, norm, network, images, labels, generator):
        for random_start in (False, True):
            attacked = pgd(network, images, labels, eps=0.0, norm=norm, random_start=random_start, generator=generator)
            assert torch.equal(attacked, images)

    @norms
    def test_random_starts_fill_the_ball(self, norm):
        """Without steps: uniform in the ball. In l2, radius^d is uniform, d = 12; 4000 starts, five deviations."""
        inputs = torch.full((4000, 3, 2, 2), 0.5)
        starts = pgd(
            lambda images: images.flatten(1)[:, :2],
            inputs,
            torch.zeros(4000, dtype=torch.int64),
            eps=0.2,
            step_size=0.0,
            steps=1,
            norm=norm,
            generator=seeded(0),
        )
        delta = (starts - inputs).flatten(1) / 0.2
        share = delta.abs() if norm == "linf" else delta.norm(dim=1) ** 12
        assert_close(share.mean().item(), 0.5, rtol=0, atol=5 * (1 / 12 / share.numel()) ** 0.5)
        assert_close(share.square().mean().item(), 1 / 3, rtol=0, atol=5 * (4 / 45 / share.numel()) ** 0.5)
        assert delta.mean(0).abs().max() < 5 * delta.std() / 4000**0.5


class TestStrength:
    @norms
    @directions
    def test_beats_random_noise(self, norm, targeted, network, images, labels, generator):
        """Twenty tries with every pixel at its end (l2: on the sphere), the best for each image."""
        eps = radius(norm)
        sign = -1 if targeted else 1
        tries = []
        for _ in range(20):
            noise = torch.randn(images.shape, generator=generator)
            length = noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            noise = eps * (noise.sign() if norm == "linf" else noise / length)
            tries.append(sign * loss(network, (images + noise).clamp(0, 1), labels))
        best = torch.stack(tries).amax(0)
        attacked = pgd(network, images, labels, eps=eps, norm=norm, targeted=targeted, generator=generator)
        assert (sign * loss(network, attacked, labels) > best).all()

    @norms
    @directions
    def test_restarts_never_lower_the_objective(self, norm, targeted, network, images, labels):
        """The same generator begins with the same start, so each number of restarts contains the one before."""
        sign, previous, values = -1 if targeted else 1, None, []
        for restarts in (1, 2, 4):
            attacked = pgd(
                network,
                images,
                labels,
                eps=radius(norm),
                steps=2,
                step_size=radius(norm) / 8,
                norm=norm,
                targeted=targeted,
                restarts=restarts,
                generator=seeded(0),
            )
            value = sign * loss(network, attacked, labels)
            assert previous is None or (value >= previous - 1e-6).all()
            previous = value
            values.append(value.mean())
        assert values[2] > values[0] + 1e-4

    def test_restarts_keep_the_best_of_each_image(self, network, images, labels):
        """Against three attacks one after the other with one generator."""
        options = {"eps": EPS, "steps": 2, "step_size": EPS / 8}
        generator = seeded(5)
        ends = torch.stack([pgd(network, images, labels, generator=generator, **options) for _ in range(3)])
        best = torch.stack([loss(network, end, labels) for end in ends]).argmax(0)
        assert len(best.unique()) > 1
        together = pgd(network, images, labels, restarts=3, generator=seeded(5), **options)
        assert_close(together, ends[best, range(len(images))], rtol=0, atol=1e-7)

    def test_expectation_beats_one_draw_on_a_noisy_network(self, network, images, labels):
        """Loss averaged over 64 fresh draws, after twenty steps from the inputs; seeds fixed."""
        inject(network, weights=PNI(initial=1.0))
        values = []
        with noise_from(network, Fresh(seeded(0))):
            for objective in (one_draw_loss(), expected_probabilities(16)):
                attacked = pgd(network, images, labels, eps=EPS, steps=10, objective=objective, random_start=False)
                with torch.no_grad():
                    values.append(torch.stack([loss(network, attacked, labels) for _ in range(64)]).mean())
        assert values[1] > values[0]


class TestManners:
    @norms
    @pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
    def test_the_model_is_untouched(self, norm, mode, network, images, labels, generator):
        network.train(mode == "train")
        if mode == "mixed":
            network[3].train()
        network[0].weight.requires_grad_(False)
        inject(network, weights=PNI(), layers=["7"])
        hooks = [(dict(module._forward_hooks), dict(module._forward_pre_hooks)) for module in network.modules()]
        tensors = copy.deepcopy(network.state_dict())
        modes = [module.training for module in network.modules()]
        flags = [parameter.requires_grad for parameter in network.parameters()]
        pgd(network, images, labels, eps=radius(norm), norm=norm, restarts=2, generator=generator)
        assert [module.training for module in network.modules()] == modes
        assert [parameter.requires_grad for parameter in network.parameters()] == flags
        assert all(parameter.grad is None for parameter in network.parameters())
        now = [(dict(module._forward_hooks), dict(module._forward_pre_hooks)) for module in network.modules()]
        assert now == hooks
        for name, value in network.state_dict().items():
            assert torch.equal(value, tensors[name]), name

    def test_gradients_of_training_are_kept(self, network, images, labels):
        loss(network, images, labels).sum().backward()
        before = [parameter.grad.clone() for parameter in network.parameters()]
        pgd(network, images, labels, eps=EPS)
        for parameter, gradient in zip(network.parameters(), before, strict=True):
            assert torch.equal(parameter.grad, gradient)

    def test_an_error_gives_the_modes_back(self, network, images, labels):
        network.train()
        with pytest.raises(ArgumentError, match="labels: expected classes"):
            pgd(network, images, labels + 99, eps=EPS)
        assert all(module.training for module in network.modules())

    def test_train_mode_gives_the_same_images_as_eval_mode(self, network, images, labels):
        network.train()
        first = pgd(network, images, labels, eps=EPS, generator=seeded(1))
        network.eval()
        assert torch.equal(pgd(network, images, labels, eps=EPS, generator=seeded(1)), first)

    def test_frozen_parameters(self, network, images, labels):
        expected = pgd(network, images, labels, eps=EPS, random_start=False)
        network.requires_grad_(False)
        assert torch.equal(pgd(network, images, labels, eps=EPS, random_start=False), expected)
        assert not any(parameter.requires_grad for parameter in network.parameters())

    def test_under_no_grad(self, network, images, labels):
        expected = pgd(network, images, labels, eps=EPS, restarts=2, generator=seeded(1))
        with torch.no_grad():
            attacked = pgd(network, images, labels, eps=EPS, restarts=2, generator=seeded(1))
            assert not torch.is_grad_enabled()
        assert torch.equal(attacked, expected)
        assert not attacked.requires_grad

    def test_inputs_and_labels_stay(self, network, images, labels):
        inputs = images.clone().requires_grad_()
        kept = labels.clone()
        attacked = pgd(network, inputs, labels, eps=EPS)
        assert not attacked.requires_grad
        assert inputs.grad is None
        assert inputs.requires_grad
        assert torch.equal(inputs, images)
        assert torch.equal(labels, kept)

    def test_the_generator_decides(self, network, images, labels):
        before = torch.get_rng_state()
        first, second, other = (pgd(network, images, labels, eps=EPS, generator=seeded(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, second)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), before)

    def test_noise_stays_on_in_the_attack(self, network, images, labels):
        """Each gradient is of a fresh draw: two attacks on a noisy network from one start differ."""
        inject(network, weights=PNI())
        first, second = (pgd(network, images, labels, eps=EPS, random_start=False) for _ in range(2))
        assert not torch.equal(first, second)
        with noiseless(network):
            first, second = (pgd(network, images, labels, eps=EPS, random_start=False) for _ in range(2))
        assert torch.equal(first, second)

    def test_a_plain_function_in_double_precision(self, network, images, labels):
        network.double()
        attacked = pgd(network.forward, images.double(), labels, eps=EPS)
        assert attacked.dtype == torch.float64


class TestErrors:
    def test_argument(self, network):
        def call(**change):
            arguments = {
                "model": network,
                "inputs": torch.full((2, 3, 8, 8), 0.5),
                "labels": torch.tensor([0, 1]),
                "eps": 0.1,
                **change,
            }
            # The tests' own type checker would refuse some of these first, which a user's run does not have.
            inspect.unwrap(pgd)(**arguments)

        check_refusals(
            call,
            [
                ({"inputs": torch.full((2, 3, 8, 8), float("nan"))}, "inputs: expected images in .*, got NaN"),
                ({"inputs": torch.full((2, 3, 8, 8), 2.0)}, "inputs: expected images in .*, got values in"),
                ({"inputs": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, "inputs: expected a float tensor .* uint8"),
                ({"inputs": torch.zeros(2, 192)}, r"inputs: expected shape \(N, C, H, W\), got shape \(2, 192\)"),
                ({"inputs": torch.zeros(0, 3, 8, 8)}, "inputs: expected at least one image"),
                ({"labels": torch.tensor([0, 1, 2])}, r"labels: expected int64 classes of shape \(2,\), got .* \(3,\)"),
                ({"labels": torch.zeros(2)}, r"labels: expected int64 classes of shape \(2,\), got torch.float32"),
                ({"labels": torch.zeros(2, 4).long()}, r"labels: expected int64 classes of shape \(2,\)"),
                ({"eps": -0.1}, r"eps: expected a finite number of at least 0, got -0\.1"),
                ({"eps": float("nan")}, "eps: expected a finite number of at least 0, got nan"),
                ({"eps": float("inf")}, "eps: expected a finite number of at least 0, got inf"),
                ({"step_size": -0.1}, r"step_size: expected a finite number of at least 0, got -0\.1"),
                ({"momentum": -0.1}, r"momentum: expected a finite number of at least 0, got -0\.1"),
                ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
                ({"restarts": 0}, "restarts: expected an integer of at least 1, got 0"),
                ({"norm": "l1"}, "norm: expected one of linf, l2, got 'l1'"),
                (
                    {"start": torch.zeros(2, 3, 4, 4)},
                    r"start: expected shape \(2, 3, 8, 8\) and restarts=1, got shape \(2, 3, 4, 4\)",
                ),
                (
                    {"start": torch.zeros(2, 3, 8, 8), "restarts": 2},
                    "start: expected shape .* and restarts=1, got .* and restarts=2",
                ),
                ({"model": lambda inputs: inputs[:1].flatten(1)}, r"model: expected float logits of shape \(2, K\)"),
                (
                    {"model": lambda inputs: inputs.detach().flatten(1)},
                    "model: expected logits differentiable with respect to the inputs",
                ),
                ({"model": lambda inputs: (inputs > 0.5).float().flatten(1)}, "model: expected logits differentiable"),
            ],
        )

    def test_a_model_that_cuts_its_inputs_off_but_has_weights(self, images, labels):
        class Cut(nn.Sequential):
            def forward(self, inputs):
                return super().forward(inputs.detach())

        model = Cut(nn.Flatten(), nn.Linear(192, 4))
        with pytest.raises(ArgumentError, match="model: expected logits differentiable with respect to the inputs"):
            pgd(model, images, labels, eps=EPS)

    def test_ball(self):
        with pytest.raises(ArgumentError, match="norm: expected one of linf, l2, got 'l1'"):
            ball("l1")
