"""BPDA's value and gradient by definition, and that it breaks defences whose own gradient is of no use."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from smoothed.attacks import pgd
from smoothed.attacks.bpda import bpda, identity
from smoothed.errors import ArgumentError
from smoothed.rng.seeds import seeded
from smoothed.utils.modes import eval_mode


def quantised(images):
    """Sixteen levels: the gradient is 0 almost everywhere."""
    return (images * 15).round() / 15


BASIS = torch.tensor(
    [[(0.5 if k == 0 else 1) ** 0.5 / 2 * torch.cos(torch.tensor((2 * n + 1) * k * torch.pi / 16)) for n in range(8)]
     for k in range(8)]
)  # fmt: skip


def compressed(images):
    """JPEG without its entropy coding: rounded coefficients of the discrete cosine transform of 8 by 8 blocks."""
    coefficients = BASIS @ images @ BASIS.T
    return (BASIS.T @ (coefficients * 8).round() @ BASIS / 8).clamp(0, 1)


def test_value_is_exact_and_gradient_is_the_approximations(images):
    """d/dx of sum(outer * sin(x)) is outer * cos(x), whatever the function."""
    inputs, outer = images.requires_grad_(), torch.randn(images.shape, generator=seeded(1))
    values = bpda(quantised, torch.sin)(inputs)
    assert torch.equal(values, quantised(images.detach()))
    assert torch.equal(torch.autograd.grad((values * outer).sum(), inputs)[0], outer * images.detach().cos())
    values = bpda(quantised)(inputs)
    assert torch.equal(torch.autograd.grad((values * outer).sum(), inputs)[0], outer)


def test_the_chain_rule_goes_on_before_and_after(images, network):
    """In double precision against a network on the part's output as if it were the input, times the slope before it."""
    network.double()
    start = images.double().requires_grad_()
    values = network(bpda(quantised)(0.5 * start)).logsumexp(1)
    moved = quantised(0.5 * start.detach()).requires_grad_()
    assert_close(values, network(moved).logsumexp(1))
    expected = 0.5 * torch.autograd.grad(network(moved).logsumexp(1).sum(), moved)[0]
    assert_close(torch.autograd.grad(values.sum(), start)[0], expected)


def test_second_derivatives_are_the_approximations(images):
    inputs = images.requires_grad_()
    (slope,) = torch.autograd.grad(bpda(quantised, torch.sin)(inputs).sum(), inputs, create_graph=True)
    assert torch.equal(torch.autograd.grad(slope.sum(), inputs)[0], -images.detach().sin())


def test_parts_that_change_the_shape_or_return_their_input(images):
    inputs = images.requires_grad_()
    shrunk = bpda(
        lambda images: quantised(functional.avg_pool2d(images, 2)), lambda images: functional.avg_pool2d(images, 2)
    )(inputs)
    assert_close(torch.autograd.grad(shrunk.sum(), inputs)[0], torch.full_like(images, 0.25))
    same = bpda(identity)(inputs)
    assert torch.equal(same, inputs)
    assert same is not inputs
    assert torch.equal(torch.autograd.grad(same.sum(), inputs)[0], torch.ones_like(images))


def test_parts_outside_torch(images):
    """NumPy refuses tensors that require gradients."""
    part = bpda(lambda images: torch.from_numpy(images.numpy().round(1)))
    assert torch.equal(part(images.requires_grad_()), images.detach().round(decimals=1))


class TestDefences:
    @pytest.mark.parametrize("part", [quantised, compressed])
    def test_pgd_needs_it(self, part, network, images):
        labels = network(part(images)).argmax(1)
        defended = nn.Sequential(bpda(part), network).eval()
        options = {"eps": 0.1, "steps": 20}
        attacked = pgd(defended, images, labels, generator=seeded(1), **options)
        plain = pgd(lambda inputs: network(part(inputs)), images, labels, generator=seeded(1), **options)
        right = [(network(part(each)).argmax(1) == labels).double().mean() for each in (plain, attacked)]
        assert right[0] > 0.8
        assert right[1] < 0.1

    def test_targeted(self, network, images):
        labels = (network(quantised(images)).argmax(1) + 1) % 4
        defended = nn.Sequential(bpda(quantised), network).eval()
        options = {"eps": 0.2, "steps": 20, "targeted": True}
        attacked = pgd(defended, images, labels, generator=seeded(1), **options)
        plain = pgd(lambda inputs: network(quantised(inputs)), images, labels, generator=seeded(1), **options)
        reached = [(network(quantised(each)).argmax(1) == labels).double().mean() for each in (plain, attacked)]
        assert reached[0] < 0.2
        assert reached[1] > 0.7


class TestModule:
    def test_modes_reach_both_parts(self):
        part = bpda(nn.Dropout(0.5), nn.Dropout(0.5))
        assert part.training
        with eval_mode(part):
            assert not any(module.training for module in part.modules())
        assert all(module.training for module in part.modules())
        assert not bpda(nn.Dropout(0.5).eval()).training
        assert not bpda(quantised).training

    def test_without_gradients_the_approximation_is_not_run(self, images):
        def refuse(inputs):
            raise AssertionError(inputs)

        with torch.no_grad():
            assert torch.equal(bpda(quantised, refuse)(images), quantised(images))

    def test_a_random_part_is_drawn_anew(self, images):
        part = bpda(lambda images: images + torch.randn(images.shape))
        assert not torch.equal(part(images), part(images))


@pytest.mark.parametrize(
    ("function", "backward", "match"),
    [
        (lambda images: images > 0.5, identity, "function: expected a float tensor as its output, got torch.bool"),
        (lambda images: images.tolist(), identity, "function: expected a float tensor as its output, got list"),
        (
            lambda images: images.flatten(1),
            identity,
            r"backward: expected outputs of shape \(16, 192\), the same as function's, got shape \(16, 3, 8, 8\)",
        ),
    ],
)
def test_errors(function, backward, match, images):
    with pytest.raises(ArgumentError, match=match):
        bpda(function, backward)(images.requires_grad_())
