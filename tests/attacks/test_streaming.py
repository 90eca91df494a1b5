"""Expectations over draws against a literal version that keeps every draw's graph, and what memory they take."""

import weakref

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from smoothed.attacks import (
    expected_logits,
    expected_loss,
    expected_probabilities,
    expected_vote,
    margin,
    one_draw_loss,
)
from smoothed.injection import CNI, inject, noise_from
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh

DRAWS = 6


def literal_loss(logits, labels):
    """Mean over draws (M, N, K) of -log p_y."""
    return -logits.log_softmax(-1)[:, range(len(labels)), labels].mean(0)


def literal_probabilities(logits, labels):
    """-log of the mean over draws of p_y (eq. 25)."""
    right = logits.log_softmax(-1)[:, range(len(labels)), labels]
    return -(right.logsumexp(0) - torch.tensor(len(logits), dtype=logits.dtype).log())


def literal_logits(logits, labels):
    """-log p_y of the mean over draws of the logits (eq. 24)."""
    return -logits.mean(0).log_softmax(-1)[range(len(labels)), labels]


def literal_margin(scores, labels):
    """The best wrong score minus that of the label, of scores (N, K)."""
    wrong = torch.stack([torch.cat([s[:y], s[y + 1 :]]).max() for s, y in zip(scores, labels.tolist(), strict=True)])
    return wrong - scores[range(len(labels)), labels]


# Of the mean over draws, whatever is averaged: a loss that is no cross-entropy.
MARGINS = {
    "margin of probabilities": (
        lambda eot_samples: expected_probabilities(eot_samples, margin, max_stored_draws=1),
        lambda logits, labels: literal_margin(logits.softmax(-1).mean(0).log(), labels),
    ),
    "margin of logits": (
        lambda eot_samples: expected_logits(eot_samples, margin, max_stored_draws=2),
        lambda logits, labels: literal_margin(logits.mean(0), labels),
    ),
    "margin of the vote": (
        lambda eot_samples: expected_vote(eot_samples, max_stored_draws=1),
        lambda logits, labels: literal_margin(logits.softmax(-1).mean(0), labels),
    ),
    "margin of the vote, held": (
        lambda eot_samples: expected_vote(eot_samples, max_stored_draws=8),
        lambda logits, labels: literal_margin(logits.softmax(-1).mean(0), labels),
    ),
}


@pytest.mark.parametrize(("objective", "literal"), MARGINS.values(), ids=MARGINS)
def test_other_losses_of_a_mean(objective, literal, noisy, batch):
    inputs, labels = batch
    value = under(noisy, 3, lambda: objective(DRAWS)(noisy, inputs, labels))
    expected = under(noisy, 3, lambda: literal(torch.stack([noisy(inputs) for _ in range(DRAWS)]), labels))
    assert_close(value, expected, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(each.sum(), inputs)[0] for each in (value, expected)]
    assert_close(*gradients, rtol=1e-9, atol=1e-10)
    assert gradients[0].abs().amax((1, 2, 3)).min() > 1e-6


STREAMED = {
    "loss": (expected_loss, literal_loss),
    "probabilities": (expected_probabilities, literal_probabilities),
    "logits": (lambda eot_samples: expected_logits(eot_samples, max_stored_draws=1), literal_logits),
}
streamed = pytest.mark.parametrize(("objective", "literal"), STREAMED.values(), ids=STREAMED)


@pytest.fixture
def noisy(network):
    """In float64, with noise that makes the draws differ."""
    inject(network, weights=CNI(initial_variance=0.05))
    return network.double()


@pytest.fixture
def batch(images, labels):
    return images.double().requires_grad_(), labels


def under(model, seed, function):
    """`function` of `model`, whose noise begins at `seed`."""
    with noise_from(model, Fresh(seeded(seed))):
        return function()


@streamed
class TestLiteral:
    def test_value_and_gradient(self, objective, literal, noisy, batch):
        inputs, labels = batch
        outer = torch.linspace(-1, 3, len(labels), dtype=torch.float64)
        value = under(noisy, 3, lambda: objective(DRAWS)(noisy, inputs, labels))
        expected = under(noisy, 3, lambda: literal(torch.stack([noisy(inputs) for _ in range(DRAWS)]), labels))
        assert_close(value, expected, rtol=1e-10, atol=1e-10)
        gradients = [torch.autograd.grad((each * outer).sum(), inputs)[0] for each in (value, expected)]
        assert_close(*gradients, rtol=1e-9, atol=1e-10)
        assert gradients[0].abs().amax((1, 2, 3)).min() > 1e-6

    def test_through_what_comes_before(self, objective, literal, noisy, batch):
        """Inputs that are themselves a function: the chain rule goes on."""
        start, labels = batch
        gradients = []
        for function in (
            lambda inputs: objective(DRAWS)(noisy, inputs, labels),
            lambda inputs: literal(torch.stack([noisy(inputs) for _ in range(DRAWS)]), labels),
        ):
            inputs = start.square() * 0.9
            value = under(noisy, 4, lambda inputs=inputs, function=function: function(inputs))
            gradients.append(torch.autograd.grad(value.exp().sum(), start)[0])
        assert_close(*gradients, rtol=1e-9, atol=1e-10)

    def test_without_gradients(self, objective, literal, noisy, batch):
        inputs, labels = batch
        modes = []
        noisy.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled()))
        expected = under(noisy, 3, lambda: literal(torch.stack([noisy(inputs) for _ in range(DRAWS)]), labels))
        modes.clear()
        with torch.no_grad():
            value = under(noisy, 3, lambda: objective(DRAWS)(noisy, inputs, labels))
        still = under(noisy, 3, lambda: objective(DRAWS)(noisy, inputs.detach(), labels))
        for each in (value, still):
            assert not each.requires_grad
            assert_close(each, expected.detach(), rtol=1e-10, atol=1e-10)
        assert modes == [False] * 2 * DRAWS

    def test_one_draw(self, objective, literal, noisy, batch):
        del literal
        values = [under(noisy, 5, lambda what=what: what(noisy, *batch)) for what in (objective(1), one_draw_loss())]
        assert_close(*values, rtol=1e-12, atol=1e-12)
        assert_close(*[torch.autograd.grad(value.sum(), batch[0])[0] for value in values], rtol=1e-10, atol=1e-12)

    def test_extreme_logits(self, objective, literal, batch):
        """Draws whose losses are thousands apart, in either order, and probabilities that are 0 in any precision."""
        inputs, labels = batch
        slopes = 1e4 * torch.randn(DRAWS, 4, 192, generator=seeded(1), dtype=torch.float64)
        for order in (range(DRAWS), range(DRAWS - 1, -1, -1)):
            draws = iter(order)
            what = expected_logits if literal is literal_logits else objective  # these draws don't come again
            value = what(DRAWS)(lambda images, draws=draws: images.flatten(1) @ slopes[next(draws)].T, inputs, labels)
            expected = literal(torch.stack([inputs.flatten(1) @ slopes[draw].T for draw in order]), labels)
            assert_close(value, expected, rtol=1e-9, atol=1e-9)
            gradients = [torch.autograd.grad(each.sum(), inputs)[0] for each in (value, expected)]
            assert_close(*gradients, rtol=1e-8, atol=1e-8)
            assert gradients[0].isfinite().all()
        assert value.max() > 1e4

    def test_weights_and_their_gradients_are_left_alone(self, objective, literal, noisy, batch):
        del literal
        objective(DRAWS)(noisy, *batch).sum().backward()
        assert batch[0].grad.abs().max() > 0
        assert all(parameter.grad is None for parameter in noisy.parameters())

    def test_a_second_derivative_is_refused_where_it_would_be_zero(self, objective, literal, noisy, batch):
        del literal
        value = objective(DRAWS)(noisy, *batch).exp()
        (gradient,) = torch.autograd.grad(value.sum(), batch[0], create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()


ALIVE = weakref.WeakSet()
COUNTS = []


class Token:
    """As long as it lives, so does the graph it belongs to."""


class Watched(torch.autograd.Function):
    """The identity, in whose graph a token hangs."""

    @staticmethod
    def forward(ctx, inputs):
        ctx.token = Token()
        ALIVE.add(ctx.token)
        COUNTS.append(len(ALIVE))
        return inputs.clone()

    @staticmethod
    def backward(ctx, outer):
        del ctx
        return outer


class Watching(nn.Sequential):
    def forward(self, inputs):
        return super().forward(Watched.apply(inputs))


def peak_of(objective, model, batch):
    COUNTS.clear()
    torch.autograd.grad(objective(Watching(model), *batch).sum(), batch[0])
    assert not ALIVE
    return max(COUNTS)


@streamed
@pytest.mark.parametrize("eot_samples", [2, 12])
def test_one_graph_lives_at_a_time(objective, literal, eot_samples, noisy, batch):
    del literal
    assert peak_of(objective(eot_samples), noisy, batch) == 1


def test_the_watch_sees_graphs_that_are_kept(noisy, batch):
    """Else the test above would pass for any objective: this one is told to hold its draws."""
    assert peak_of(expected_logits(12, max_stored_draws=12), noisy, batch) == 12


def test_a_mean_of_logits_whose_draws_do_not_come_again_holds_them(batch):
    """A model whose randomness nobody can take back: value and gradient are those of the draws it takes."""
    inputs, labels = batch
    slopes = torch.randn(40, 4, 192, generator=seeded(1), dtype=torch.float64)
    used = []

    def model(images):
        used.append(len(used))
        return images.flatten(1) @ slopes[used[-1]].T

    value = expected_logits(DRAWS, max_stored_draws=2)(model, inputs, labels)
    expected = literal_logits(torch.stack([inputs.flatten(1) @ slopes[draw].T for draw in used[-DRAWS:]]), labels)
    assert_close(value, expected, rtol=1e-10, atol=1e-10)
    assert_close(*[torch.autograd.grad(each.sum(), inputs)[0] for each in (value, expected)], rtol=1e-9, atol=1e-10)
