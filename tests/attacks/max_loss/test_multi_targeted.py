"""Multi-targeted PGD against closed forms on linear models, a grid on a ReLU network, and for its manners."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

import optima
from refusing import check_refusals
from smoothed.attacks import expected_loss, margin, one_draw_loss, pgd
from smoothed.attacks.losses import targeted_margin
from smoothed.attacks.max_loss.multi_targeted import multi_targeted_pgd
from smoothed.injection import PNI, inject, noise_from
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh

norms = pytest.mark.parametrize("norm", ["linf", "l2"])


@norms
@pytest.mark.parametrize("low", [0.3, 0.0], ids=["interior", "at the borders"])
def test_the_optimum_of_a_linear_model(norm, low):
    """In l2, clamping after the projection leaves some of the radius unused where pixels reach 0 or 1."""
    linear, eps = optima.Linear(5), {"linf": 0.1, "l2": 0.25}[norm]
    inputs, labels = optima.problem_of(linear, 16, (3, 2, 2), low=low, high=1 - low)
    attacked = multi_targeted_pgd(linear, inputs, labels, eps=eps, norm=norm, generator=seeded(0))
    assert ((attacked == 0) | (attacked == 1)).any() == (low == 0)
    optima.assert_within(attacked, inputs, eps, norm)
    share = optima.share_of_optimum(linear, attacked, inputs, labels, eps, norm)
    assert share.max() <= 1 + 1e-9
    assert share.min() >= {"linf": 1 - 1e-9, "l2": 0.97 if low == 0 else 0.999}[norm]


@norms
def test_close_to_the_optimum_of_a_relu_network(norm):
    network, eps = optima.ReLUNetwork(), {"linf": 0.1, "l2": 0.15}[norm]
    inputs, labels = optima.problem_of(network, 12, (1, 1, 3))
    attacked = multi_targeted_pgd(network, inputs, labels, eps=eps, norm=norm, restarts=5, generator=seeded(0))
    optima.assert_within(attacked, inputs, eps, norm)
    highest, clean = network.highest(inputs, labels, eps, norm), margin(network(inputs), labels)
    share = (margin(network(attacked), labels) - clean) / (highest - clean)
    assert share.min() >= 0.98
    assert share.max() <= 1.01  # what lies between the grid's points


@norms
def test_keeps_the_best_of_the_targets(norm, network, images):
    """Against PGD on each surrogate by hand, one after the other with one generator."""
    network.double()
    inputs, labels = images.double(), network(images.double()).argmax(1)
    eps, generator = {"linf": 8 / 255, "l2": 0.4}[norm], seeded(3)
    options = {"eps": eps, "norm": norm, "steps": 3}
    ranked = network(inputs).scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)[:, :-1].T
    ends = []
    for targets in ranked[:2]:
        for _ in range(2):
            objective = partial(lambda loss, model, x, y: loss(model(x), y), targeted_margin(targets))
            ends.append(pgd(network, inputs, labels, objective=objective, generator=generator, **options))
    best = torch.stack([margin(network(end), labels) for end in ends]).argmax(0)
    assert len(best.unique()) > 1
    attacked = multi_targeted_pgd(network, inputs, labels, num_targets=2, restarts=2, generator=seeded(3), **options)
    assert_close(attacked, torch.stack(ends)[best, range(16)], rtol=0, atol=1e-9)


@norms
def test_an_expectation_beats_one_draw_on_a_random_model(norm):
    """By the margin of the mean model, whose optimum is known; the noise is four times as large as the weights."""
    eps, linear, shares = {"linf": 0.1, "l2": 0.25}[norm], optima.Linear(2), []
    inputs, labels = optima.problem_of(linear, 16, (3, 2, 2), low=0.3, high=0.7)
    for draws in (one_draw_loss, partial(expected_loss, 16)):
        options = {"make_objective": draws, "steps": 10, "generator": seeded(0)}
        attacked = multi_targeted_pgd(optima.NoisyLinear(2, 4.0), inputs, labels, eps=eps, norm=norm, **options)
        shares.append(optima.share_of_optimum(linear, attacked, inputs, labels, eps, norm).mean())
    assert shares[0] < 0.65
    assert shares[1] > 0.8


class TestManners:
    def test_the_model_is_untouched(self, network, images, labels):
        inject(network.train(), weights=PNI(), layers=["7"])
        modes, state = [module.training for module in network.modules()], torch.get_rng_state()
        tensors = {name: value.clone() for name, value in network.state_dict().items()}
        inputs = images.clone().requires_grad_()
        with noise_from(network, Fresh(seeded(1))), torch.no_grad():
            attacked = multi_targeted_pgd(network, inputs, labels, eps=0.1, steps=2, generator=seeded(2))
        assert not attacked.requires_grad
        assert inputs.grad is None
        assert torch.equal(torch.get_rng_state(), state)
        assert [module.training for module in network.modules()] == modes
        assert all(parameter.grad is None for parameter in network.parameters())
        assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())

    def test_the_generator_decides(self, network, images, labels):
        first, second, other = (
            multi_targeted_pgd(network, images, labels, eps=0.1, steps=2, generator=seeded(seed)) for seed in (1, 1, 2)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first, other)

    def test_an_eps_for_each_image(self, network, images, labels):
        eps = torch.linspace(0, 0.1, 16)
        attacked = multi_targeted_pgd(network, images, labels, eps=eps, steps=4)
        assert (optima.length(attacked - images, "linf") <= eps + 1e-6).all()
        assert (optima.length(attacked - images, "linf") >= 0.9 * eps).all()


def test_errors(network):
    def call(**change):
        arguments = {
            "model": network,
            "inputs": torch.full((2, 3, 8, 8), 0.5),
            "labels": torch.tensor([0, 1]),
            "eps": 0.1,
            **change,
        }
        multi_targeted_pgd(**arguments)

    check_refusals(
        call,
        [
            ({"inputs": torch.full((2, 3, 8, 8), 2.0)}, "inputs: expected images in"),
            ({"labels": torch.tensor([0])}, r"labels: expected int64 classes of shape \(2,\)"),
            ({"labels": torch.tensor([0, 9])}, r"labels: expected classes in 0\.\.3"),
            ({"eps": -1.0}, "eps: expected a finite number of at least 0, got -1"),
            ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
            ({"restarts": 0}, "restarts: expected an integer of at least 1, got 0"),
            ({"num_targets": 0}, "num_targets: expected an integer of at least 1, got 0"),
            ({"norm": "l1"}, "norm: expected one of linf, l2, got 'l1'"),
            (
                {"model": lambda images: images.detach().flatten(1)},
                "model: expected logits differentiable with respect to the inputs",
            ),
        ],
    )
