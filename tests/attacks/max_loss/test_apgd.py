"""APGD against closed forms on linear models, a grid on a ReLU network, and for its manners."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

import optima
from refusing import check_refusals
from smoothed.attacks import cross_entropy, dlr, expected_loss, margin, one_draw_loss
from smoothed.attacks.losses import targeted_margin
from smoothed.attacks.max_loss.apgd import apgd, apgd_targeted
from smoothed.errors import ArgumentError
from smoothed.injection import PNI, inject, noise_from
from smoothed.rng.rows import RowGenerator
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh

EPS = {"linf": 0.1, "l2": 0.25}
norms = pytest.mark.parametrize("norm", ["linf", "l2"])
directions = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
borders = pytest.mark.parametrize("low", [0.3, 0.0], ids=["interior", "at the borders"])
both = pytest.mark.parametrize("attack", [apgd, apgd_targeted])


class TestLinear:
    """In l2, clamping after the projection leaves some of the radius unused where pixels reach 0 or 1."""

    def lowest_share(self, norm, low):
        if norm == "linf":
            return 1 - 1e-9
        return 0.97 if low == 0 else 1 - 1e-4

    @norms
    @borders
    @directions
    def test_two_classes(self, norm, low, targeted):
        """The cross-entropy, ascended at the label or descended at the other class, rises with the margin."""
        linear, eps = optima.Linear(2), EPS[norm]
        inputs, labels = optima.problem_of(linear, 16, (3, 2, 2), low=low, high=1 - low)
        wanted = 1 - labels if targeted else labels
        attacked = apgd(linear, inputs, wanted, eps=eps, norm=norm, targeted=targeted, generator=seeded(0))
        assert ((attacked == 0) | (attacked == 1)).any() == (low == 0)
        optima.assert_within(attacked, inputs, eps, norm)
        share = optima.share_of_optimum(linear, attacked, inputs, labels, eps, norm)
        assert share.max() <= 1 + 1e-9
        assert share.min() >= self.lowest_share(norm, low)

    @norms
    @borders
    def test_five_classes(self, norm, low):
        """Towards each class by itself the margin is linear."""
        linear, eps = optima.Linear(5), EPS[norm]
        inputs, labels = optima.problem_of(linear, 16, (3, 2, 2), low=low, high=1 - low)
        options = {"loss": targeted_margin, "steps": 50, "generator": seeded(0)}
        attacked = apgd_targeted(linear, inputs, labels, eps=eps, norm=norm, **options)
        optima.assert_within(attacked, inputs, eps, norm)
        share = optima.share_of_optimum(linear, attacked, inputs, labels, eps, norm)
        assert share.max() <= 1 + 1e-9
        assert share.min() >= self.lowest_share(norm, low)

    @norms
    @both
    def test_dlr_breaks_most_of_what_can_be_broken(self, norm, attack):
        """Whether a wrong class can win within the ball is known; where the ratio is highest is not."""
        linear, eps = optima.Linear(5), 3.5 * EPS[norm]
        inputs, labels = optima.problem_of(linear, 40, (3, 2, 2))
        options = {"objective": one_draw_loss(dlr), "restarts": 3} if attack is apgd else {"num_targets": 3}
        attacked = attack(linear, inputs, labels, eps=eps, norm=norm, steps=20, generator=seeded(0), **options)
        breakable = linear.highest_margin(inputs, labels, eps, norm) > 0
        broken = margin(linear(attacked), labels) > 0
        assert breakable[broken].all()
        assert 10 < breakable.sum() < 30
        assert broken.sum() >= 0.6 * breakable.sum()


@norms
class TestReLUNetwork:
    def share(self, network, attacked, inputs, labels, norm, loss):
        eps = EPS[norm]
        highest, clean = network.highest(inputs, labels, eps, norm, loss), loss(network(inputs), labels)
        optima.assert_within(attacked, inputs, eps, norm)
        share = (loss(network(attacked), labels) - clean) / (highest - clean)
        assert share.max() <= 1.03  # what lies between the grid's points
        return share

    @directions
    def test_close_to_the_optimum(self, norm, targeted):
        """Of the margin, and of the cross-entropy at a wrong class, negative."""
        network = optima.ReLUNetwork()
        inputs, labels = optima.problem_of(network, 12, (1, 1, 3))
        labels = (labels + 1) % 4 if targeted else labels
        loss = (lambda logits, labels: -cross_entropy(logits, labels)) if targeted else margin
        attacked = apgd(
            network,
            inputs,
            labels,
            eps=EPS[norm],
            norm=norm,
            objective=None if targeted else one_draw_loss(margin),
            targeted=targeted,
            steps=20,
            restarts=4 if targeted else 12,
            generator=seeded(0),
        )
        assert self.share(network, attacked, inputs, labels, norm, loss).min() >= 0.98

    def test_towards_each_class(self, norm):
        network = optima.ReLUNetwork()
        inputs, labels = optima.problem_of(network, 12, (1, 1, 3))
        options = {"loss": targeted_margin, "steps": 20, "restarts": 3}
        attacked = apgd_targeted(network, inputs, labels, eps=EPS[norm], norm=norm, generator=seeded(0), **options)
        assert self.share(network, attacked, inputs, labels, norm, margin).min() >= 0.98


class TestBudget:
    @settings(max_examples=25, derandomize=True)
    @given(
        eps=st.floats(0, 2),
        steps=st.integers(1, 8),
        norm=st.sampled_from(["linf", "l2"]),
        attack=st.sampled_from([apgd, partial(apgd, targeted=True), apgd_targeted]),
        random_start=st.booleans(),
        stop=st.booleans(),
        seed=st.integers(0, 2**31),
    )
    def test_never_leaves_the_ball_or_the_range(self, eps, steps, norm, attack, random_start, stop, seed):
        generator = seeded(seed)
        weight = torch.randn(4, 12, generator=generator)
        inputs = torch.rand(4, 3, 2, 2, generator=generator).mul(1.4).sub(0.2).clamp(0, 1)  # some at the ends
        attacked = attack(
            lambda images: images.flatten(1) @ weight.T,
            inputs,
            torch.tensor([0, 1, 2, 0]),
            eps=eps,
            steps=steps,
            norm=norm,
            random_start=random_start,
            early_stop=stop,
            generator=generator,
        )
        optima.assert_within(attacked, inputs, eps + 1e-5, norm)

    @norms
    def test_an_eps_for_each_image(self, norm, network, images, labels):
        eps = torch.linspace(0, EPS[norm], 16)
        attacked = apgd(network, images, labels, eps=eps, norm=norm, steps=10)
        optima.assert_within(attacked, images, eps, norm)
        assert (optima.length(attacked - images, norm) >= 0.9 * eps).all()

    @both
    def test_zero_eps_returns_the_inputs(self, attack, network, images, labels):
        assert torch.equal(attack(network, images, labels, eps=0.0, steps=3), images)


class TestStrength:
    @norms
    @directions
    def test_beats_random_noise(self, norm, targeted, network, images, labels, generator):
        """Twenty tries with every pixel at its end (l2: on the sphere), the best for each image."""
        sign, eps, tries = -1 if targeted else 1, 0.5 * EPS[norm], []
        for _ in range(20):
            noise = torch.randn(images.shape, generator=generator)
            noise = noise.sign() if norm == "linf" else noise / optima.length(noise, norm).view(-1, 1, 1, 1)
            tries.append(sign * cross_entropy(network((images + eps * noise).clamp(0, 1)), labels))
        attacked = apgd(network, images, labels, eps=eps, norm=norm, targeted=targeted, steps=10, generator=generator)
        assert (sign * cross_entropy(network(attacked), labels) > torch.stack(tries).amax(0)).all()

    def test_restarts_keep_the_best_of_each_image(self, network, images, labels):
        """Against three attacks one after the other with one generator."""
        options = {"eps": 0.1, "steps": 3}
        generator = seeded(5)
        ends = torch.stack([apgd(network, images, labels, generator=generator, **options) for _ in range(3)])
        best = torch.stack([cross_entropy(network(end), labels) for end in ends]).argmax(0)
        assert len(best.unique()) > 1
        together = apgd(network, images, labels, restarts=3, generator=seeded(5), **options)
        assert_close(together, ends[best, range(16)], rtol=0, atol=1e-6)

    @both
    @norms
    def test_an_expectation_beats_one_draw_on_a_random_model(self, attack, norm):
        """By the margin of the mean model, whose optimum is known; the noise is four times as large as the weights."""
        linear, eps, shares = optima.Linear(2), EPS[norm], []
        inputs, labels = optima.problem_of(linear, 16, (3, 2, 2), low=0.3, high=0.7)
        for draws in (one_draw_loss, partial(expected_loss, 16)):
            options = (
                {"objective": draws(margin)} if attack is apgd else {"make_objective": draws, "loss": targeted_margin}
            )
            noisy = optima.NoisyLinear(2, 4.0)
            attacked = attack(noisy, inputs, labels, eps=eps, norm=norm, steps=20, generator=seeded(0), **options)
            shares.append(optima.share_of_optimum(linear, attacked, inputs, labels, eps, norm).mean())
        assert shares[0] < 0.6
        assert shares[1] > 0.8


class TestStop:
    @both
    @norms
    def test_breaks_the_same_images_with_less_work(self, attack, norm, network, images):
        labels, asked = network(images).argmax(1), []
        network.register_forward_pre_hook(lambda module, args: asked.append(len(args[0])))  # noqa: ARG005
        broken, work, eps = [], [], {"linf": 0.03, "l2": 0.3}[norm]
        for stop in (False, True):
            asked.clear()
            options = {"objective": one_draw_loss(margin)} if attack is apgd else {}
            attacked = attack(
                network, images, labels, eps=eps, norm=norm, steps=10, early_stop=stop, generator=seeded(0), **options
            )
            work.append(sum(asked))
            broken.append(network(attacked).argmax(1) != labels)
        assert torch.equal(*broken)
        assert broken[0].sum() > 2
        assert work[1] < work[0]

    def test_an_image_is_left_as_soon_as_the_wanted_class_is_reached(self, network, images):
        labels = (network(images).argmax(1) + 1) % 4
        options = {"eps": 0.3, "steps": 20, "targeted": True, "random_start": False}
        early = apgd(network, images, labels, early_stop=True, **options)
        late = apgd(network, images, labels, **options)
        reached = network(late).argmax(1) == labels
        assert reached.sum() > 5
        assert torch.equal(network(early).argmax(1) == labels, reached)
        assert (cross_entropy(network(early), labels) > cross_entropy(network(late), labels) + 1e-3)[reached].all()

    def test_what_is_broken_from_the_start_stays(self, network, images):
        labels = (network(images).argmax(1) + 1) % 4
        for attack in (apgd, apgd_targeted):
            options = {"eps": 0.1, "random_start": False, "early_stop": True, "restarts": 3}
            assert torch.equal(attack(network, images, labels, **options), images)

    def test_one_lucky_draw_ends_nothing_unless_asked(self, images):
        """A model that is wrong in its first call alone."""
        calls = []

        def lucky(inputs):
            calls.append(len(inputs))
            logits = functional.one_hot(torch.zeros(len(inputs), dtype=torch.int64), 3) * 1.0
            return (-logits if len(calls) == 1 else logits) + 1e-3 * inputs.flatten(1)[:, :3]

        apgd(lucky, images, torch.zeros(16, dtype=torch.int64), eps=0.1, steps=5)
        assert calls == [16] * 6
        calls.clear()
        apgd(lucky, images, torch.zeros(16, dtype=torch.int64), eps=0.1, steps=5, early_stop=True)
        assert calls == [16]


@both
class TestManners:
    @pytest.mark.parametrize("stop", [False, True])
    def test_the_model_is_untouched(self, attack, stop, network, images, labels):
        inject(network.train(), weights=PNI(), layers=["7"])
        modes, state = [module.training for module in network.modules()], torch.get_rng_state()
        tensors = {name: value.clone() for name, value in network.state_dict().items()}
        inputs = images.clone().requires_grad_()
        with noise_from(network, Fresh(seeded(1))), torch.no_grad():
            attacked = attack(network, inputs, labels, eps=0.1, steps=3, early_stop=stop, generator=seeded(2))
            assert not torch.is_grad_enabled()
        assert not attacked.requires_grad
        assert inputs.grad is None
        assert torch.equal(torch.get_rng_state(), state)
        assert [module.training for module in network.modules()] == modes
        assert all(parameter.grad is None for parameter in network.parameters())
        assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())

    def test_the_generator_decides(self, attack, network, images, labels):
        first, second, other = (
            attack(network, images, labels, eps=0.1, steps=3, generator=seeded(seed)) for seed in (1, 1, 2)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first, other)

    @pytest.mark.parametrize("stop", [False, True])
    def test_starts_follow_images(self, attack, stop, network, images, labels):
        network.double()
        options = {"eps": 0.02, "steps": 3, "restarts": 2, "early_stop": stop}
        whole = attack(network, images.double(), labels, generator=RowGenerator(4), **options)
        parts = [
            attack(network, images[cut].double(), labels[cut], generator=RowGenerator(4, cut.start), **options)
            for cut in (slice(0, 5), slice(5, 16))
        ]
        assert_close(torch.cat(parts), whole, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("stop", [False, True])
    def test_errors(self, attack, stop, network):
        def call(**change):
            arguments = {
                "model": network,
                "inputs": torch.full((2, 3, 8, 8), 0.5),
                "labels": network(torch.full((2, 3, 8, 8), 0.5)).argmax(1),
                "eps": 0.1,
                **change,
            }
            attack(**arguments, early_stop=stop)

        check_refusals(
            call,
            [
                ({"inputs": torch.full((2, 3, 8, 8), 2.0)}, "inputs: expected images in"),
                ({"labels": torch.tensor([0])}, r"labels: expected int64 classes of shape \(2,\)"),
                ({"labels": torch.tensor([0, 9])}, r"labels: expected classes in 0\.\.3"),
                ({"eps": -1.0}, "eps: expected a finite number of at least 0, got -1"),
                ({"eps": torch.ones(3)}, r"eps: expected a number or a tensor of shape \(2,\), got shape \(3,\)"),
                ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
                ({"restarts": 0}, "restarts: expected an integer of at least 1, got 0"),
                ({"norm": "l1"}, "norm: expected one of linf, l2, got 'l1'"),
                ({"model": lambda images: images.detach().flatten(1)}, "model: expected logits differentiable"),
            ],
        )


def test_too_few_classes_for_the_targeted_dlr(images):
    with pytest.raises(
        ArgumentError, match="loss: expected at least 4 classes for the DLR loss, got 3; use the margin"
    ):
        apgd_targeted(lambda inputs: inputs.flatten(1)[:, :3], images, torch.zeros(16, dtype=torch.int64), eps=0.1)


def test_no_targets(network, images, labels):
    with pytest.raises(ArgumentError, match="num_targets: expected an integer of at least 1, got 0"):
        apgd_targeted(network, images, labels, eps=0.1, num_targets=0)
