"""FGSM against eq. 1, N-FGSM against its definition."""

import copy

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from smoothed.attacks import expected_loss, fgsm, fgsm_random_start, nfgsm
from smoothed.errors import ArgumentError
from smoothed.injection import PNI, inject
from smoothed.rng.rows import RowGenerator
from smoothed.rng.seeds import seeded

EPS = 8 / 255


def loss(model, inputs, labels):
    return functional.cross_entropy(model(inputs), labels, reduction="none")


def gradient(model, inputs, labels):
    inputs = inputs.clone().requires_grad_()
    return torch.autograd.grad(loss(model, inputs, labels).sum(), inputs)[0]


def state(model):
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    return tensors, [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]


def assert_untouched(model, before):
    tensors, modes, flags = before
    for name, value in model.state_dict().items():
        assert torch.equal(value, tensors[name]), name
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class TestFgsm:
    @pytest.mark.parametrize("targeted", [False, True])
    def test_is_equation_1(self, targeted, network, images, labels):
        sign = -1 if targeted else 1
        expected = (images + sign * EPS * gradient(network, images, labels).sign()).clamp(0, 1)
        assert_close(fgsm(network, images, labels, eps=EPS, targeted=targeted), expected, rtol=0, atol=1e-6)

    def test_raises_the_loss_and_targeted_lowers_it(self, network, images, labels):
        clean = loss(network, images, labels)
        assert (loss(network, fgsm(network, images, labels, eps=EPS), labels) > clean).all()
        assert (loss(network, fgsm(network, images, labels, eps=EPS, targeted=True), labels) < clean).all()

    def test_an_objective_of_many_draws(self, network, images, labels):
        inject(network, weights=PNI(initial=0.05))
        attacked = fgsm(network, images, labels, eps=EPS, objective=expected_loss(8))
        assert (attacked - images).abs().max() <= EPS + 1e-6
        assert loss(network, attacked, labels).mean() > loss(network, images, labels).mean()

    def test_leaves_the_model(self, network, images, labels):
        before = state(network.train())
        fgsm(network, images, labels, eps=EPS)
        assert_untouched(network, before)

    def test_one_radius_an_image(self, network, images, labels):
        eps = torch.linspace(0, EPS, 16)
        expected = (images + eps.view(-1, 1, 1, 1) * gradient(network, images, labels).sign()).clamp(0, 1)
        assert_close(fgsm(network, images, labels, eps=eps), expected, rtol=0, atol=1e-6)

    def test_errors(self, network, images, labels):
        with pytest.raises(ArgumentError, match="eps: expected a finite number of at least 0, got -1"):
            fgsm(network, images, labels, eps=-1)
        with pytest.raises(ArgumentError, match="inputs: expected images in"):
            fgsm(network, images - 1, labels, eps=EPS)


class TestRandomStart:
    """Wong, Rice and Kolter's fast adversarial training, from their published step."""

    @pytest.fixture
    def inputs(self, images):
        """In float64, with pixels at both ends of the range."""
        return images.double().mul(1.4).sub(0.2).clamp(0, 1)

    @pytest.mark.parametrize("step_size", [None, 0.0, EPS, 2 * EPS])
    def test_is_their_step(self, step_size, network, inputs, labels):
        """Uniform noise, cut to the range; the gradient there, in train mode; a step, cut to the ball and the range."""
        twin = copy.deepcopy(network.double())
        twin[1].train()
        delta = torch.empty_like(inputs).uniform_(-EPS, EPS, generator=seeded(3))
        delta = torch.max(torch.min(delta, 1 - inputs), 0 - inputs)
        alpha = 1.25 * EPS if step_size is None else step_size
        delta = torch.clamp(delta + alpha * gradient(twin, inputs + delta, labels).sign(), min=-EPS, max=EPS)
        expected = inputs + torch.max(torch.min(delta, 1 - inputs), 0 - inputs)
        attacked = fgsm_random_start(network, inputs, labels, eps=EPS, step_size=step_size, generator=seeded(3))
        assert_close(attacked, expected, rtol=0, atol=1e-12)

    def test_stays_in_its_ball_and_raises_the_loss(self, network, inputs, labels, generator):
        inputs = inputs.float()
        attacked = fgsm_random_start(network, inputs, labels, eps=EPS, generator=generator)
        assert 0.99 * EPS < (attacked - inputs).abs().max() <= EPS + 1e-6
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        noise = torch.empty_like(inputs).uniform_(-EPS, EPS, generator=generator)
        start = loss(network, (inputs + noise).clamp(0, 1), labels)
        assert (loss(network, attacked, labels) > start).all()

    def test_starts_follow_images(self, network, images, labels):
        whole = fgsm_random_start(network.eval(), images, labels, eps=EPS, step_size=0.0, generator=RowGenerator(7))
        end = fgsm_random_start(network, images[5:], labels[5:], eps=EPS, step_size=0.0, generator=RowGenerator(7, 5))
        assert torch.equal(end, whole[5:])

    def test_leaves_the_model(self, network, images, labels, generator):
        for mode in (True, False):
            before = state(network.train(mode))
            fgsm_random_start(network, images, labels, eps=EPS, generator=generator)
            assert_untouched(network, before)
            assert network[1].track_running_stats

    def test_the_generator_decides(self, network, images, labels):
        before = torch.get_rng_state()
        ends = [fgsm_random_start(network, images, labels, eps=EPS, generator=seeded(seed)) for seed in (1, 1, 2)]
        assert torch.equal(ends[0], ends[1])
        assert not torch.equal(ends[0], ends[2])
        assert torch.equal(torch.get_rng_state(), before)

    def test_errors(self, network, images, labels):
        with pytest.raises(ArgumentError, match="step_size: expected a finite number of at least 0, got -1"):
            fgsm_random_start(network, images, labels, eps=EPS, step_size=-1)
        with pytest.raises(ArgumentError, match=r"eps: expected a finite number of at least 0, got -0\.1"):
            fgsm_random_start(network, images, labels, eps=-0.1)
        with pytest.raises(ArgumentError, match="inputs: expected images in"):
            fgsm_random_start(network, images + 1, labels, eps=EPS)


class TestNfgsm:
    @pytest.mark.parametrize("start_eps", [None, 0.0, 0.5 * EPS])
    def test_is_its_definition(self, start_eps, network, images, labels):
        """Uniform noise of 2 eps, one step from there, no projection; batch norms see the batch, dropout is off."""
        bound = 2 * EPS if start_eps is None else start_eps
        noise = torch.empty_like(images).uniform_(-bound, bound, generator=torch.Generator().manual_seed(3))
        twin = copy.deepcopy(network)
        twin[1].train()
        expected = (images + noise + EPS * gradient(twin, images + noise, labels).sign()).clamp(0, 1)
        attacked = nfgsm(
            network, images, labels, eps=EPS, start_eps=start_eps, generator=torch.Generator().manual_seed(3)
        )
        assert_close(attacked, expected, rtol=0, atol=1e-6)

    def test_bound(self, network, images, labels, generator):
        for start_eps, bound in ((None, 3 * EPS), (EPS, 2 * EPS), (0.0, EPS)):
            attacked = nfgsm(network, images, labels, eps=EPS, start_eps=start_eps, generator=generator)
            distance = (attacked - images).abs().max().item()
            assert 0.9 * bound < distance <= bound + 1e-6
            assert attacked.min() >= 0
            assert attacked.max() <= 1

    def test_raises_the_loss_over_its_noisy_start(self, network, images, labels):
        noise = torch.empty_like(images).uniform_(-2 * EPS, 2 * EPS, generator=torch.Generator().manual_seed(3))
        attacked = nfgsm(network, images, labels, eps=EPS, generator=torch.Generator().manual_seed(3))
        start, end = (loss(network, (at).clamp(0, 1), labels) for at in (images + noise, attacked))
        assert (end > start).all()

    def test_leaves_the_model(self, network, images, labels, generator):
        for mode in (True, False):
            before = state(network.train(mode))
            nfgsm(network, images, labels, eps=EPS, generator=generator)
            assert_untouched(network, before)
            assert network[1].track_running_stats

    def test_the_generator_decides(self, network, images, labels):
        before = torch.get_rng_state()
        first, second = (
            nfgsm(network, images, labels, eps=EPS, generator=torch.Generator().manual_seed(3)) for _ in range(2)
        )
        assert torch.equal(first, second)
        assert torch.equal(torch.get_rng_state(), before)

    def test_errors(self, network, images, labels):
        with pytest.raises(ArgumentError, match="start_eps: expected a finite number of at least 0, got -1"):
            nfgsm(network, images, labels, eps=EPS, start_eps=-1)
        with pytest.raises(ArgumentError, match="eps: expected a finite number of at least 0, got nan"):
            nfgsm(network, images, labels, eps=float("nan"))
        with pytest.raises(ArgumentError, match=r"labels: expected int64 classes of shape \(16,\)"):
            nfgsm(network, images, labels[:3], eps=EPS)
