"""What minimum-norm attacks share: norms, the search, the budget; and the manners of each of the attacks."""

import copy
import inspect
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from nearest import linear_model, random_images
from refusing import check_refusals
from smoothed.attacks import expected_logits, expected_loss, one_draw_loss
from smoothed.attacks.min_norm.carlini_wagner_l0 import carlini_wagner_l0
from smoothed.attacks.min_norm.carlini_wagner_l2 import carlini_wagner_l2
from smoothed.attacks.min_norm.carlini_wagner_linf import carlini_wagner_linf
from smoothed.attacks.min_norm.ddn import ddn
from smoothed.attacks.min_norm.minimum import Search, norms, within_radius
from smoothed.errors import ArgumentError
from smoothed.injection import PNI, inject, noise_from
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh

ATTACKS = {
    "l2": (partial(carlini_wagner_l2, steps=20, binary_search_steps=4, initial_const=0.1, step_size=0.05), "l2"),
    "linf": (partial(carlini_wagner_linf, steps=15, search_steps=4, step_size=0.05), "linf"),
    "l0": (partial(carlini_wagner_l0, steps=20, search_steps=12, step_size=0.2, initial_const=0.1), "l0"),
    "ddn": (partial(ddn, steps=30), "l2"),
}
attacks = pytest.mark.parametrize(("attack", "norm"), ATTACKS.values(), ids=ATTACKS)
all_norms = pytest.mark.parametrize("norm", ["linf", "l2", "l0"])
directions = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])


@pytest.fixture
def sorted_labels(network, images):
    """The network's own answers: nothing is adversarial before it is attacked."""
    with torch.no_grad():
        return network(images).argmax(1)


class TestNorms:
    def test_by_hand(self):
        """Two positions change: one in all three channels, one in a single one."""
        delta = torch.zeros(2, 3, 2, 2)
        delta[0, :, 0, 0] = torch.tensor([0.1, -0.2, 0.2])
        delta[0, 1, 1, 0] = 0.4
        expected = {"linf": [0.4, 0], "l2": [0.5, 0], "l0": [2.0, 0]}
        for norm, values in expected.items():
            assert_close(norms(delta, norm), torch.tensor(values))

    def test_half_precision_is_measured_in_float32(self):
        delta = torch.full((1, 3, 32, 32), 200.0, dtype=torch.float16)  # whose square overflows
        assert_close(norms(delta, "l2"), torch.tensor([200 * 3072**0.5]))

    def test_error(self):
        with pytest.raises(ArgumentError, match="norm: expected one of linf, l2, l0, got 'l1'"):
            norms(torch.zeros(1, 1, 1, 1), "l1")


class TestSearch:
    @directions
    def test_keeps_the_smallest_success(self, targeted):
        """The mean of two pixels decides; labels say 0, or ask for 1."""

        def model(inputs):
            mean = inputs.mean((1, 2, 3))
            return torch.stack([0.5 - mean, mean - 0.5], 1)

        inputs = torch.tensor([[0.2, 0.2], [0.2, 0.2]]).view(2, 1, 1, 2)
        labels = torch.full((2,), int(targeted))
        search = Search(model, inputs, labels, norm="l2", make_objective=one_draw_loss, targeted=targeted)
        both, second = torch.tensor([0, 1]), torch.tensor([1])
        values, slope = search.judge(inputs + 0.4, both)
        assert_close(values, torch.tensor([0.2, 0.2]))
        assert_close(slope, torch.ones(2, 1, 1, 2))
        search.judge(inputs[1:] + 0.5, second)  # further away
        search.judge(inputs + 0.2, both)  # not adversarial
        search.judge(inputs[1:] + 0.35, second)
        assert_close(search.images.view(2, 2)[:, 0], torch.tensor([0.6, 0.55]))
        assert_close(search.norms, torch.tensor([0.4, 0.35]) * 2**0.5)

    @pytest.mark.parametrize("eot_samples", [1, 4, 12])
    @pytest.mark.parametrize("draws", [expected_loss, expected_logits])
    def test_success_is_decided_by_the_draws_of_the_gradient(self, eot_samples, draws):
        """A model of noise alone, from one generator: the value is the mean over exactly those draws."""
        generator = seeded(3)

        class Noisy(nn.Module):
            def __init__(self):
                super().__init__()
                self.generator = generator

            def forward(self, inputs):
                noise = torch.randn(len(inputs), 1, generator=self.generator)
                score = inputs.flatten(1).sum(1, keepdim=True) + noise
                return torch.cat([score, -score], 1)

        inputs, labels = random_images(3, 1, 1, 2).float(), torch.tensor([0, 1, 0])
        search = Search(Noisy(), inputs, labels, norm="l2", make_objective=partial(draws, eot_samples))
        values, _ = search.judge(inputs, torch.arange(3))
        generator.manual_seed(3)
        noise = torch.stack([torch.randn(3, generator=generator) for _ in range(eot_samples)]).mean(0)
        expected = 2 * (inputs.flatten(1).sum(1) + noise) * torch.tensor([-1, 1, -1])
        assert_close(values, expected)

    def test_the_smallest_lucky_success_is_biased(self):
        """As the docstring warns: an image that is right nine times in ten counts as broken after many steps."""

        def model(inputs):
            wrong = (torch.rand(len(inputs), generator=generator) < 0.1).float()
            return torch.stack([1 - 2 * wrong, 2 * wrong - 1], 1) + 1e-6 * inputs.mean((1, 2, 3))[:, None]

        generator = seeded(0)
        inputs, labels, rows = torch.full((50, 1, 1, 1), 0.5), torch.zeros(50, dtype=torch.int64), torch.arange(50)
        found = []
        for draws in (one_draw_loss, partial(expected_loss, 16)):
            search = Search(model, inputs, labels, norm="l2", make_objective=draws)
            for _ in range(20):
                search.judge(inputs, rows)
            found.append(search.found.float().mean().item())
        assert_close(found[0], 1 - 0.9**20, rtol=0, atol=0.15)
        assert found[1] == 0


class TestBounded:
    def budget(self, attack, norm, eps, inputs):
        return within_radius(attack, eps=eps, norm=norm)(
            nn.Identity(), inputs, torch.zeros(len(inputs), dtype=torch.int64)
        )

    @all_norms
    def test_keeps_what_is_inside_and_projects_the_rest(self, norm):
        inputs = random_images(20, 3, 4, 4)
        delta = random_images(20, 3, 4, 4, low=-1, seed=1) * torch.linspace(0, 1, 20).view(-1, 1, 1, 1)
        delta[:10, :, :, 2:] = 0
        ends = (inputs + delta).clamp(0, 1)
        eps = {"linf": 0.4, "l2": 1.5, "l0": 10}[norm]
        result = self.budget(lambda *_: ends, norm, eps, inputs)
        inside = norms(ends - inputs, norm) <= eps
        assert 0 < inside.sum() < 20
        assert torch.equal(result[inside], ends[inside])
        sizes = norms(result - inputs, norm)
        assert (sizes <= eps + 1e-9).all()
        assert (sizes[~inside] > 0.99 * eps).all()
        assert result.min() >= 0
        assert result.max() <= 1

    def test_l0_keeps_the_largest(self):
        inputs = torch.zeros(1, 2, 1, 3)
        ends = torch.tensor([[0.5, 0.3, 0.1], [0.0, 0.45, 0.2]]).view(1, 2, 1, 3)
        result = self.budget(lambda *_: ends, "l0", 1, inputs)  # 0.29 and 0.25 as squares: the second position
        assert torch.equal(result.view(2, 3), torch.tensor([[0, 0.3, 0], [0, 0.45, 0]]))

    def test_works_with_the_protocol_of_attacks(self, network, images, sorted_labels):
        attack = within_radius(partial(ddn, steps=20), eps=0.1, norm="l2")
        first = attack(network, images, sorted_labels, generator=seeded(0))
        assert torch.equal(first, attack(network, images, sorted_labels))
        assert norms(first - images, "l2").max() <= 0.1 + 1e-6

    def test_errors(self):
        with pytest.raises(ArgumentError, match="eps: expected a finite number of at least 0, got -1"):
            within_radius(ddn, eps=-1, norm="l2")
        with pytest.raises(ArgumentError, match="norm: expected one of linf, l2, l0, got 'l1'"):
            within_radius(ddn, eps=1, norm="l1")


@attacks
class TestEveryAttack:
    @pytest.mark.slow
    @directions
    def test_beats_random_noise_of_its_size(self, attack, norm, targeted, network, images, sorted_labels):
        """What is found is adversarial, in [0, 1], and of a size at which noise fails for nearly all images."""
        wanted = (sorted_labels + 1) % 4 if targeted else sorted_labels
        attacked = attack(network, images, wanted, targeted=targeted)
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        delta = attacked - images
        sizes = norms(delta, norm).view(-1, 1, 1, 1)
        success = (network(attacked).argmax(1) == wanted) == targeted
        assert success.all()
        noise = torch.randn(images.shape, generator=seeded(2))
        if norm == "l0":
            # The same number of positions, anywhere, at the ends of the range.
            chosen = torch.rand(16, 1, 8, 8, generator=seeded(3)).flatten(1).argsort(1).argsort(1).view(16, 1, 8, 8)
            tried = torch.where(chosen < sizes, (noise > 0).float(), images)
        else:
            scaled = noise.sign() if norm == "linf" else noise / norms(noise, "l2").view(-1, 1, 1, 1)
            tried = (images + sizes * scaled).clamp(0, 1)
        by_noise = (network(tried).argmax(1) == wanted) == targeted
        assert by_noise.float().mean() < 0.3

    def test_what_is_broken_stays(self, attack, norm, network, images, sorted_labels):
        labels = torch.where(torch.arange(16) < 8, sorted_labels, (sorted_labels + 1) % 4)
        attacked = attack(network, images, labels)
        same = (norms(attacked - images, norm) == 0).tolist()
        assert same == [False] * 8 + [True] * 8

    def test_without_success_the_inputs_come_back(self, attack, norm, images):  # noqa: ARG002
        """A slope, and no way to flip the answer."""

        def stubborn(inputs):
            score = inputs.mean((1, 2, 3)) + 1
            return torch.stack([score, -score], 1)

        attacked = attack(stubborn, images, torch.zeros(16, dtype=torch.int64))
        assert torch.equal(attacked, images)

    @pytest.mark.slow
    @pytest.mark.parametrize("mode", [True, False])
    def test_the_model_is_untouched(self, attack, norm, mode, network, images, labels):  # noqa: ARG002
        network.train(mode)
        inject(network, weights=PNI(), layers=["7"])
        tensors, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
        state = torch.get_rng_state()
        with noise_from(network, Fresh(seeded(1))):
            attacked = attack(network, images.requires_grad_(), labels, make_objective=partial(expected_loss, 2))
        assert not attacked.requires_grad
        assert images.grad is None
        assert torch.equal(torch.get_rng_state(), state)
        assert [module.training for module in network.modules()] == modes
        assert all(parameter.grad is None for parameter in network.parameters())
        assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())

    @pytest.mark.slow
    def test_nothing_is_drawn(self, attack, norm, network, images, labels):  # noqa: ARG002
        """The same network, images and labels: the same result, under `no_grad`, too."""
        first = attack(network, images, labels)
        with torch.no_grad():
            assert torch.equal(attack(network, images, labels), first)

    @pytest.mark.slow
    def test_an_image_is_attacked_alone(self, attack, norm, network, images, sorted_labels):  # noqa: ARG002
        network, images = network.double(), images.double()
        whole = attack(network, images, sorted_labels)
        alone = torch.cat([attack(network, images[cut], sorted_labels[cut]) for cut in (slice(0, 1), slice(1, 16))])
        assert_close(alone, whole, rtol=0, atol=1e-7)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_the_inputs_dtype(self, attack, norm, dtype):
        model = linear_model(3, 12).to(dtype)
        inputs = random_images(4, 3, 2, 2, low=0.45, high=0.55).to(dtype)
        labels = model(inputs).argmax(1)
        attacked = attack(model, inputs, labels)
        assert attacked.dtype == dtype
        assert (norms(attacked - inputs, norm) > 0).all()
        assert (model(attacked).argmax(1) != labels).all()

    def test_errors(self, attack, norm, network):  # noqa: ARG002
        def call(**change):
            given = {"inputs": torch.full((2, 3, 8, 8), 0.5), "labels": torch.tensor([0, 1])}
            arguments = {"model": network, **given, **attack.keywords, **change}
            inspect.unwrap(attack.func)(**arguments)

        check_refusals(
            call,
            [
                ({"inputs": torch.full((2, 3, 8, 8), 2.0)}, "inputs: expected images in"),
                ({"inputs": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, "inputs: expected a float tensor"),
                ({"labels": torch.tensor([0, 9])}, r"labels: expected classes in 0\.\.3"),
                ({"labels": torch.tensor([0])}, r"labels: expected int64 classes of shape \(2,\)"),
                ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
                ({"model": lambda inputs: inputs.detach().flatten(1)}, "model: expected logits differentiable"),
                ({"model": lambda inputs: inputs[:1].flatten(1)}, r"model: expected float logits of shape \(2, K\)"),
            ],
        )
