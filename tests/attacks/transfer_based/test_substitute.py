"""Substitutes of linear targets, whose boundary is known, the paper's augmentation by hand, and the queries."""

import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from refusing import check_refusals
from smoothed.attacks import Queries, named_attack
from smoothed.attacks.transfer_based.substitute import _augmented, train_substitute
from smoothed.attacks.transfer_based.transfer import transfer
from smoothed.rng.seeds import seeded

WEIGHT = torch.randn(3, 12, generator=seeded(9))


def target(images):
    """Three classes, none of them rare."""
    return 3 * (images - 0.5).flatten(1) @ WEIGHT.T


@pytest.fixture
def fresh(generator):
    return torch.rand(2000, 3, 2, 2, generator=generator)


@pytest.fixture
def seeds(generator):
    return torch.rand(100, 3, 2, 2, generator=generator)


def student(classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, classes))


OPTIONS = {"rounds": 4, "epochs": 30, "batch_size": 64, "learning_rate": 0.1}


class TestLinear:
    @pytest.mark.parametrize("sees", ["labels", "shares", "logits"])
    def test_it_agrees_with_the_target(self, sees, seeds, fresh):
        """On fresh images; before the training it did not."""
        queries = Queries(target, sees=sees)
        before = student()
        learned = train_substitute(queries, seeds, before, generator=seeded(1), **OPTIONS)
        agreement = [(each(fresh).argmax(1) == target(fresh).argmax(1)).double().mean() for each in (before, learned)]
        assert agreement[0] < 0.6
        assert agreement[1] > (0.9 if sees == "labels" else 0.98)  # scores tell more than the side of a boundary
        assert queries.spent.tolist() == [8] * 100  # 2^(4 - 1)

    def test_augmentation_helps(self, seeds, fresh):
        """With as many steps of training, but the first images alone."""
        agreement = []
        for options in ({"rounds": 1, "epochs": 225}, {"rounds": 4, "epochs": 30}):
            made = train_substitute(
                Queries(target, sees="labels"), seeds, student(), generator=seeded(1), **{**OPTIONS, **options}
            )
            agreement.append((made(fresh).argmax(1) == target(fresh).argmax(1)).double().mean())
        assert agreement[1] > agreement[0] + 0.02

    def test_its_examples_fool_the_target(self, seeds, fresh):
        learned = train_substitute(Queries(target, sees="labels"), seeds, student(), generator=seeded(1), **OPTIONS)
        labels, attack = target(fresh).argmax(1), named_attack("pgd", eps=0.15)
        fooled = [
            (target(transfer(target, fresh, labels, sources=source, attack=attack)).argmax(1) != labels).double().mean()
            for source in (target, learned)
        ]
        noise = (fresh + 0.15 * torch.randn(fresh.shape, generator=seeded(2)).sign()).clamp(0, 1)
        assert fooled[1] > 0.85 * fooled[0]
        assert fooled[1] > 2 * (target(noise).argmax(1) != labels).double().mean()


class TestAugmentation:
    def test_a_step_along_the_probabilitys_gradient(self, network, images, labels):
        """The paper's x + lambda sign(J[y]) with the Jacobian of the softmax, in parts as in one; clipped."""
        jacobian = torch.autograd.functional.jacobian(
            lambda inputs: network(inputs).softmax(1)[range(16), labels].sum(), images
        )
        for size in (0.1, -0.3):
            expected = (images + size * jacobian.sign()).clamp(0, 1)
            assert_close(_augmented(network, images, labels, size, 5), expected, rtol=0, atol=1e-6)

    def test_the_model_is_asked_about_the_doubled_images(self, seeds):
        """Each round's questions are a step away from all that were known; the sign turns after `period` rounds."""
        asked = []

        def watched(images):
            asked.append(images.clone())
            return target(images)

        queries = Queries(watched, chunk_size=10**6)
        options = {"rounds": 4, "period": 2, "step_size": 0.05, "learning_rate": 0.0, "epochs": 1}
        source = student()
        train_substitute(queries, seeds, source, **options)
        known = seeds
        for number, new in enumerate(asked[1:]):
            labels = target(known).argmax(1)
            slope = source[1].weight.detach()[labels] - source(known).softmax(1).detach() @ source[1].weight.detach()
            sign = 1 if number < 2 else -1
            assert_close(new, (known + sign * 0.05 * slope.sign().view_as(known)).clamp(0, 1), rtol=0, atol=1e-6)
            known = torch.cat([known, new])
        assert [len(each) for each in asked] == [100, 100, 200, 400]

    @pytest.mark.parametrize(("bound", "spent"), [(1, 1), (2, 2), (3, 3), (7, 7), (100, 8)])
    def test_queries_stay_within_their_bound(self, bound, spent, seeds):
        queries = Queries(target, max_queries=bound)
        train_substitute(queries, seeds, student(), rounds=4, epochs=1)
        assert queries.spent.tolist() == [spent] * 100


class TestTraining:
    def test_one_step_is_adams(self, seeds):
        """One round, one epoch, one batch: Adam's first step is the learning rate for each weight, against the sign."""
        source = student()
        functional.cross_entropy(source(seeds), target(seeds).argmax(1)).backward()
        learned = train_substitute(
            Queries(target, sees="labels"), seeds, student(), rounds=1, epochs=1, learning_rate=0.01
        )
        expected = source[1].weight - 0.01 * source[1].weight.grad.sign()
        assert_close(learned[1].weight, expected, rtol=0, atol=1e-5)

    def test_the_generator_decides(self, seeds):
        before = torch.get_rng_state()
        options = {"rounds": 2, "epochs": 2, "batch_size": 8}
        first, second, different = (
            train_substitute(target, seeds, student(), generator=seeded(seed), **options)[1].weight
            for seed in (1, 1, 2)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first, different)
        assert torch.equal(torch.get_rng_state(), before)

    def test_models_are_left_as_they_were(self, network, images):
        source = student(4)
        source[1] = nn.Linear(192, 4)
        kept = {name: value.clone() for name, value in source.state_dict().items()}
        learned = train_substitute(network.train(), images.requires_grad_(), source, rounds=2, epochs=1)
        assert all(module.training for module in (*network.modules(), *source.modules()))
        assert not any(module.training for module in learned.modules())
        for model in (network, source, learned):
            assert all(parameter.grad is None for parameter in model.parameters())
        assert all(torch.equal(value, kept[name]) for name, value in source.state_dict().items())
        assert images.grad is None

    def test_under_no_grad_and_with_a_batch_norm_that_one_image_would_break(self):
        source = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 3))
        images = torch.rand(33, 3, 2, 2, generator=seeded(3))
        with torch.no_grad():
            learned = train_substitute(target, images, source, rounds=1, epochs=1, batch_size=32)
            assert not torch.is_grad_enabled()
        assert not torch.equal(learned[2].weight, source[2].weight)

    def test_frozen_parameters_stay(self, seeds):
        source = student()
        source[1].bias.requires_grad_(False)
        learned = train_substitute(target, seeds, source, rounds=1, epochs=1)
        assert torch.equal(learned[1].bias, source[1].bias)
        assert not torch.equal(learned[1].weight, source[1].weight)


def test_errors():
    def call(**change):
        arguments = {"model": target, "inputs": torch.full((2, 3, 2, 2), 0.5), "substitute": student(), **change}
        inspect.unwrap(train_substitute)(**arguments)

    check_refusals(
        call,
        [
            ({"inputs": torch.full((2, 3, 2, 2), 2.0)}, "inputs: expected images in"),
            ({"rounds": 0}, "rounds: expected an integer of at least 1, got 0"),
            ({"epochs": 0}, "epochs: expected an integer of at least 1, got 0"),
            ({"period": 0}, "period: expected an integer of at least 1, got 0"),
            ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
            ({"step_size": -0.1}, r"step_size: expected a finite number of at least 0, got -0\.1"),
            ({"learning_rate": -1.0}, "learning_rate: expected a finite number of at least 0"),
            (
                {"substitute": nn.Flatten()},
                "substitute: expected a network with parameters that require gradients, got none",
            ),
            ({"substitute": student(4)}, "substitute: expected 3 classes, as many as the model, got 4"),
            ({"substitute": nn.Conv2d(3, 3, 1)}, r"substitute: expected float logits of shape \(2, K\)"),
            ({"model": lambda images: images}, r"model: expected float logits of shape \(2, K\)"),
        ],
    )
