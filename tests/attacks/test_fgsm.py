"""FGSM against eq. 1 and torchattacks, N-FGSM against its definition."""

import copy

import pytest
import torch
import torchattacks
from torch.nn import functional
from torch.testing import assert_close

from smoothed.attacks import expected_loss, fgsm, nfgsm
from smoothed.errors import ArgumentError
from smoothed.injection import PNI, inject

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

    def test_is_torchattacks(self, network, images, labels):
        peer = torchattacks.FGSM(network, eps=EPS)
        assert_close(fgsm(network, images, labels, eps=EPS), peer(images, labels), rtol=0, atol=1e-6)

    def test_is_torchattacks_targeted(self, network, images, labels):
        peer = torchattacks.FGSM(network, eps=EPS)
        peer.set_mode_targeted_by_label(quiet=True)
        attacked = fgsm(network, images, labels, eps=EPS, targeted=True)
        assert_close(attacked, peer(images, labels), rtol=0, atol=1e-6)

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

    def test_errors(self, network, images, labels):
        with pytest.raises(ArgumentError, match="eps: expected a finite number of at least 0, got -1"):
            fgsm(network, images, labels, eps=-1)
        with pytest.raises(ArgumentError, match="inputs: expected images in"):
            fgsm(network, images - 1, labels, eps=EPS)


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
