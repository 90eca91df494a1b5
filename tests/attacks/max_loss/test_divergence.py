"""The attack inside TRADES against the published algorithm, line by line, and for its manners."""

import copy

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from refusing import check_refusals
from smoothed.attacks import divergence_pgd
from smoothed.attacks.max_loss.divergence import divergence_from
from smoothed.injection import PNI, inject, noise_from
from smoothed.rng.rows import RowGenerator
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh

EPS, STEP = 8 / 255, 2 / 255
norms = pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("l2", 0.4)])


def divergence(model, adversarial, inputs):
    """KL(p(x) || p(x')) of each image, by its definition."""
    natural, moved = model(inputs).softmax(1), model(adversarial).softmax(1)
    return (natural * (natural / moved).log()).sum(1)


def zhang(model, inputs, noise, *, eps, step_size, steps):
    """Zhang et al.'s loop: 0.001 of normal noise, sign steps up the KL divergence, both clamps after each."""
    natural = functional.softmax(model(inputs), dim=1).detach()
    adversarial = inputs + 0.001 * noise
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_()
        loss = functional.kl_div(functional.log_softmax(model(adversarial), dim=1), natural, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        adversarial = adversarial.detach() + step_size * gradient.sign()
        adversarial = torch.min(torch.max(adversarial, inputs - eps), inputs + eps).clamp(0, 1)
    return adversarial


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize("step_size", [None, STEP, EPS])
def test_is_the_published_loop(steps, step_size, network, images, labels):
    network.double()
    inputs = 0.01 + 0.98 * images.double()  # so that the start leaves no image, which theirs would not notice
    noise = torch.randn(inputs.shape, generator=seeded(3), dtype=torch.float64)
    expected = zhang(
        network, inputs, noise, eps=EPS, step_size=EPS / 4 if step_size is None else step_size, steps=steps
    )
    assert steps == 1 or ((expected == 0) | (expected == 1)).any()
    options = {"eps": EPS, "step_size": step_size, "steps": steps}
    attacked = divergence_pgd(network, inputs, labels, generator=seeded(3), **options)
    assert_close(attacked, expected, rtol=0, atol=1e-12)


def test_labels_do_not_matter(network, images, labels):
    ends = [divergence_pgd(network, images, each, eps=EPS, generator=seeded(1)) for each in (labels, 0 * labels)]
    assert torch.equal(*ends)


def test_the_objective_is_the_divergence_and_its_gradient(network, images, labels):
    network.double()
    inputs = images.double()
    moved = (inputs + 0.05 * torch.randn(inputs.shape, generator=seeded(1), dtype=torch.float64)).requires_grad_()
    values = divergence_from(network(inputs).detach())(network, moved, labels), divergence(network, moved, inputs)
    assert_close(*values, rtol=1e-9, atol=1e-12)
    assert values[0].min() > 1e-7
    assert_close(*[torch.autograd.grad(value.sum(), moved)[0] for value in values], rtol=1e-8, atol=1e-10)


@norms
class TestBoth:
    def test_stays_in_the_ball_and_the_range(self, norm, eps, network, images, labels, generator):
        inputs = images.mul(1.4).sub(0.2).clamp(0, 1)
        for size in (eps, 0.0, 1e-4):  # the last is less than the start's deviation
            attacked = divergence_pgd(network, inputs, labels, eps=size, norm=norm, generator=generator)
            delta = (attacked - inputs).flatten(1)
            assert (delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)).max() <= size + 1e-6
            assert attacked.min() >= 0
            assert attacked.max() <= 1

    def test_diverges_more_than_noise(self, norm, eps, network, images, labels, generator):
        """Twenty tries on the ball's corners (l2: on its sphere), the best for each image."""
        tries = []
        for _ in range(20):
            noise = torch.randn(images.shape, generator=generator)
            noise = noise.sign() if norm == "linf" else noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            tries.append(divergence(network, (images + eps * noise).clamp(0, 1), images))
        attacked = divergence_pgd(network, images, labels, eps=eps, norm=norm, generator=generator)
        assert (divergence(network, attacked, images) > 2 * torch.stack(tries).amax(0)).all()

    def test_starts_follow_images(self, norm, eps, network, images, labels):
        # In float64: at the start, a gradient is a difference of probabilities that are nearly equal.
        network, images = network.double(), images.double()
        options = {"eps": eps, "norm": norm, "steps": 3}
        whole = divergence_pgd(network, images, labels, generator=RowGenerator(4), **options)
        parts = [
            divergence_pgd(network, images[cut], labels[cut], generator=RowGenerator(4, cut.start), **options)
            for cut in (slice(0, 5), slice(5, 16))
        ]
        # Gradients that almost vanish may round to either sign in a batch of another size.
        assert ((torch.cat(parts) - whole).abs() > 1e-6).float().mean() < 0.002


@pytest.mark.parametrize("mode", [True, False])
def test_the_model_is_untouched(mode, network, images, labels):
    network.train(mode)
    inject(network, weights=PNI(), layers=["7"])
    tensors, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    state = torch.get_rng_state()
    with noise_from(network, Fresh(seeded(1))):
        attacked = divergence_pgd(network, images.requires_grad_(), labels, eps=EPS, generator=seeded(2))
    assert not attacked.requires_grad
    assert images.grad is None
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())


def test_the_clean_answer_is_that_of_eval_mode_and_one_draw(network, images, labels):
    """Not of dropout and batch statistics; and with noise, of one draw."""
    calls = []
    network.register_forward_hook(lambda module, args, output: calls.append((module.training, len(args[0]))))  # noqa: ARG005
    divergence_pgd(network.train(), images, labels, eps=EPS, steps=3)
    assert calls == [(False, 16)] * 4


def test_errors(network):
    def call(**change):
        arguments = {"inputs": torch.full((2, 3, 8, 8), 0.5), "labels": torch.tensor([0, 1]), "eps": 0.1, **change}
        divergence_pgd(network, **arguments)

    check_refusals(
        call,
        [
            ({"inputs": torch.full((2, 3, 8, 8), 2.0)}, "inputs: expected images in"),
            ({"labels": torch.tensor([0, 9])}, r"labels: expected classes in 0\.\.3"),
            ({"labels": torch.tensor([0])}, r"labels: expected int64 classes of shape \(2,\)"),
            ({"eps": -1.0}, "eps: expected a finite number of at least 0, got -1"),
            ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
            ({"norm": "l1"}, "norm: expected one of linf, l2, got 'l1'"),
        ],
    )
