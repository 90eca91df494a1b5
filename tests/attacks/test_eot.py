"""Averaged draws as a model: against the average of single draws, in value, gradient, bias and memory."""

import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from refusing import check_refusals
from smoothed import Gaussian, NoisyClassifier, Smoothed
from smoothed.attacks import expected_logits, expected_probabilities, fgsm, pgd
from smoothed.attacks.eot import EOT
from smoothed.errors import ArgumentError
from smoothed.injection import CNI, inject, noise_from, noiseless
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh
from smoothed.utils.modes import eval_mode

DRAWS = 6
held = pytest.mark.parametrize("held", [1, DRAWS], ids=["replayed", "held"])
averages = pytest.mark.parametrize("average", ["probabilities", "logits"])
LITERAL = {"probabilities": lambda logits: logits.softmax(-1).mean(0).log(), "logits": lambda logits: logits.mean(0)}


@pytest.fixture
def noisy(network):
    """In float64, with noise that makes the draws differ."""
    inject(network, weights=CNI(initial_variance=0.05))
    return network.double()


@pytest.fixture
def batch(images, labels):
    return images.double().requires_grad_(), labels


@held
@averages
class TestLiteral:
    def test_value_and_gradient(self, average, held, noisy, batch):
        """Of any function of the logits, whose slope differs from class to class."""
        inputs, _ = batch
        outer = torch.randn(16, 4, generator=seeded(7), dtype=torch.float64)
        with noise_from(noisy, Fresh(seeded(3))):
            value = EOT(noisy, DRAWS, average=average, max_stored_draws=held)(inputs)
            (gradient,) = torch.autograd.grad((value * outer).sum(), inputs)
        with noise_from(noisy, Fresh(seeded(3))):
            expected = LITERAL[average](torch.stack([noisy(inputs) for _ in range(DRAWS)]))
        assert_close(value, expected, rtol=1e-10, atol=1e-10)
        assert_close(gradient, torch.autograd.grad((expected * outer).sum(), inputs)[0], rtol=1e-9, atol=1e-12)
        assert gradient.abs().amax((1, 2, 3)).min() > 1e-6

    def test_the_gradient_is_the_average_of_the_draws(self, average, held, noisy, batch):
        """Of the mean scores: the mean of single draws' gradients, each taken alone with the same noise."""
        inputs, _ = batch
        scores = {"probabilities": lambda logits: logits.softmax(1), "logits": lambda logits: logits}[average]
        back = {"probabilities": torch.exp, "logits": lambda logits: logits}[average]
        with noise_from(noisy, Fresh(seeded(3))):
            value = back(EOT(noisy, DRAWS, average=average, max_stored_draws=held)(inputs))
            (gradient,) = torch.autograd.grad(value[:, 0].sum(), inputs)
        with noise_from(noisy, Fresh(seeded(3))):
            single = [torch.autograd.grad(scores(noisy(inputs))[:, 0].sum(), inputs)[0] for _ in range(DRAWS)]
        assert_close(gradient, torch.stack(single).mean(0), rtol=1e-9, atol=1e-12)
        assert torch.stack(single).std(0).max() > 1e-3 * gradient.abs().max()

    def test_without_gradients(self, average, held, noisy, batch):
        modes = []
        noisy.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled()))
        expectation = EOT(noisy, DRAWS, average=average, max_stored_draws=held)
        with noise_from(noisy, Fresh(seeded(3))):
            value = expectation(batch[0].detach())
        with torch.no_grad(), noise_from(noisy, Fresh(seeded(3))):
            assert torch.equal(expectation(batch[0]), value)
            assert modes == [False] * 2 * DRAWS
        with torch.no_grad(), noise_from(noisy, Fresh(seeded(3))):
            expected = LITERAL[average](torch.stack([noisy(batch[0]) for _ in range(DRAWS)]))
        assert_close(value, expected)

    def test_weights_have_no_gradient_of_replayed_draws(self, average, held, noisy, batch):
        if held == 1:
            EOT(noisy, DRAWS, average=average, max_stored_draws=held)(batch[0]).sum().backward()
            assert all(parameter.grad is None for parameter in noisy.parameters())
            assert batch[0].grad.abs().max() > 0


class TestExpectation:
    def test_gradients_are_unbiased(self):
        """Logits of (x + n)^2, n of deviation s: the expectation's gradient is 2x. 600 copies, five deviations."""
        noisy = NoisyClassifier(lambda inputs: inputs.flatten(1).square(), Gaussian(0.3), generator=seeded(0))
        pixels = torch.linspace(0, 1, 4, dtype=torch.float64)
        inputs = pixels.view(1, 1, 2, 2).repeat(600, 1, 1, 1).requires_grad_()
        for held in (1, 3):
            expectation = EOT(noisy, 3, average="logits", max_stored_draws=held)
            slopes = torch.autograd.grad(expectation(inputs).sum(), inputs)[0].flatten(1)
            assert_close(slopes.std(0), torch.full_like(pixels, 2 * 0.3 / 3**0.5), rtol=0.15, atol=0)
            error = slopes.mean(0) - 2 * pixels
            assert (error.abs() < 5 * 2 * 0.3 / (3 * 600) ** 0.5).all()

    def test_transforms_are_drawn_with_the_draws(self, network, batch):
        """A random gain of each draw, from the default generator, is met again in the gradient."""
        inputs, _ = batch
        network.double()

        def gained(images):
            return images * (0.5 + torch.rand(len(images), 1, 1, 1, dtype=images.dtype))

        with torch.random.fork_rng():
            torch.manual_seed(8)
            value = EOT(network, DRAWS, transform=gained, max_stored_draws=1, average="logits")(inputs)
            (gradient,) = torch.autograd.grad(value.square().sum(), inputs)
            torch.manual_seed(8)
            expected = torch.stack([network(gained(inputs)) for _ in range(DRAWS)]).mean(0)
        assert_close(value, expected)
        assert_close(gradient, torch.autograd.grad(expected.square().sum(), inputs)[0])

    def test_other_shapes_may_come_of_a_transform(self, network, images):
        half = nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2))
        assert_close(EOT(network, 2, transform=half, average="logits")(images), network(half(images)))

    def test_randomness_goes_on_as_if_there_were_no_replay(self, noisy, batch):
        """After a call and its gradient the generator is where the draws of the call left it."""
        positions = []
        for each in (1, DRAWS):
            generator = seeded(5)
            with noise_from(noisy, Fresh(generator)):
                EOT(noisy, DRAWS, max_stored_draws=each)(batch[0]).sum().backward()
            positions.append(generator.get_state())
        assert torch.equal(*positions)

    def test_a_second_gradient_is_the_same(self, noisy, batch):
        with noise_from(noisy, Fresh(seeded(5))):
            value = EOT(noisy, DRAWS, max_stored_draws=1)(batch[0]).logsumexp(1).sum()
            first, second = (torch.autograd.grad(value, batch[0], retain_graph=True)[0] for _ in range(2))
        assert torch.equal(first, second)

    @pytest.mark.parametrize(
        ("average", "objective"), [("probabilities", expected_probabilities), ("logits", expected_logits)]
    )
    def test_pgd_on_it_is_pgd_on_the_objective(self, average, objective, noisy, batch):
        """EPGD (eq. 25) and SmoothAdv (eq. 24), draw for draw."""
        inputs, labels = batch[0].detach(), batch[1]
        ends = []
        for model, what in ((EOT(noisy, DRAWS, average=average), None), (noisy, objective(DRAWS))):
            with noise_from(noisy, Fresh(seeded(3))):
                ends.append(pgd(model, inputs, labels, eps=8 / 255, objective=what, generator=seeded(1)))
        assert_close(*ends, rtol=0, atol=1e-9)

    def test_it_beats_one_draw(self, network, batch):
        """What the mean of 100 other draws, the same for both, says of the label after one step; seeds fixed."""
        inputs, labels = batch[0].detach(), batch[1]
        noisy, values = network.double(), []
        inject(noisy, weights=CNI(initial_variance=0.5))
        for model in (noisy, EOT(noisy, 32)):
            with noise_from(noisy, Fresh(seeded(0))):
                attacked = fgsm(model, inputs, labels, eps=8 / 255)
            with noise_from(noisy, Fresh(seeded(1))), torch.no_grad():
                values.append(functional.cross_entropy(EOT(noisy, 100)(attacked), labels))
        with noise_from(noisy, Fresh(seeded(1))), torch.no_grad():
            clean = functional.cross_entropy(EOT(noisy, 100)(inputs), labels)
        assert values[1] - clean > 1.5 * (values[0] - clean)
        assert values[1] > clean


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


@pytest.mark.parametrize(("held", "alive"), [(1, 1), (8, 1), (12, 12)])
def test_graphs_alive_at_a_time(held, alive, noisy, batch):
    """More draws than may be held are met one by one; the last case shows that the watch sees what is held."""
    COUNTS.clear()
    torch.autograd.grad(EOT(noisy, 12, max_stored_draws=held, transform=Watched.apply)(batch[0]).sum(), batch[0])
    assert not ALIVE
    assert max(COUNTS) == alive


class TestReplay:
    def test_draws_that_do_not_come_again_are_stored(self, batch):
        inputs, _ = batch
        slopes = torch.randn(40, 4, 192, generator=seeded(1), dtype=torch.float64)
        used = []

        def model(images):
            used.append(len(used))
            return images.flatten(1) @ slopes[used[-1]].T

        value = EOT(model, DRAWS, max_stored_draws=2)(inputs)
        expected = LITERAL["probabilities"](torch.stack([inputs.flatten(1) @ slopes[i].T for i in used[-DRAWS:]]))
        assert_close(value, expected)
        assert_close(*[torch.autograd.grad(each[:, 1].sum(), inputs)[0] for each in (value, expected)])

    def test_a_soft_vote_can_be_averaged(self, network, images):
        """A `Smoothed` numbers its calls, which nobody takes back."""
        smoothed = Smoothed(network, Gaussian(0.1), vote="soft", num_samples=2, seed=0).eval()
        value = EOT(smoothed.as_logits(), 3, max_stored_draws=1)(images.requires_grad_())
        assert torch.autograd.grad(value.sum(), images)[0].isfinite().all()

    def test_a_gradient_of_other_draws_is_refused(self, noisy, batch):
        """The noise of the call is gone when the gradient is taken."""
        with noise_from(noisy, Fresh(seeded(5))):
            value = EOT(noisy, DRAWS, max_stored_draws=1)(batch[0])
        with pytest.raises(
            ArgumentError, match=r"model: expected the same draws in the backward pass .* set max_stored_draws"
        ):
            value.sum().backward()

    def test_a_gradient_in_another_mode_is_refused(self, network, images):
        inputs = images.requires_grad_()
        with eval_mode(network):
            value = EOT(network, DRAWS, max_stored_draws=1)(inputs)
        network.train()
        with pytest.raises(ArgumentError, match="model: expected the same draws in the backward pass"):
            value.sum().backward()

    def test_a_second_derivative_is_refused(self, noisy, batch):
        value = EOT(noisy, DRAWS, max_stored_draws=1)(batch[0]).exp()
        (gradient,) = torch.autograd.grad(value.sum(), batch[0], create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()


class TestModule:
    def test_modes_and_noise_are_the_models(self, noisy, batch):
        noisy.train()
        expectation = EOT(noisy, 2)
        assert expectation.training
        with eval_mode(expectation), noiseless(expectation):
            assert_close(expectation(batch[0]).softmax(1), noisy(batch[0]).softmax(1))
        assert noisy.training
        assert not EOT(noisy.eval()).training
        assert not EOT(lambda images: images.flatten(1)).training

    def test_the_model_is_untouched_by_an_attack(self, noisy, batch):
        noisy.train()
        before = {name: value.clone() for name, value in noisy.state_dict().items()}
        with noise_from(noisy, Fresh(seeded(1))):
            pgd(EOT(noisy, 3, max_stored_draws=1), *batch, eps=0.1, generator=seeded(2))
        assert all(module.training for module in noisy.modules())
        assert all(parameter.grad is None for parameter in noisy.parameters())
        assert all(torch.equal(value, before[name]) for name, value in noisy.state_dict().items())


def test_errors(images, labels):
    def call(**options):
        pgd(EOT(**{"model": nn.Flatten(), **options}), images, labels, eps=0.1)

    check_refusals(
        call,
        [
            ({"eot_samples": 0}, "eot_samples: expected an integer of at least 1, got 0"),
            ({"max_stored_draws": 0}, "max_stored_draws: expected an integer of at least 1, got 0"),
            ({"average": "loss"}, "average: expected one of probabilities, logits, got 'loss'"),
            ({"model": lambda images: images}, r"model: expected float logits of shape \(16, K\)"),
            (
                {"model": lambda images: images.detach().flatten(1)},
                "model: expected logits differentiable with respect to the inputs",
            ),
            (
                {"model": lambda images: images.detach().flatten(1), "max_stored_draws": 1},
                "model: expected logits differentiable with respect to the inputs",
            ),
        ],
    )
