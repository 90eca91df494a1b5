"""What all query attacks promise, against a counter of their own queries and closed forms, for each of them."""

import copy
import inspect
import math

import pytest
import torch
from torch import nn

from refusing import check_refusals
from smoothed.attacks import Queries, margin
from smoothed.attacks.query_based.nattack import nattack
from smoothed.attacks.query_based.query_attack import QueryAttack
from smoothed.attacks.query_based.square import square
from smoothed.attacks.query_based.zoo import zoo
from smoothed.injection import PNI, inject, noise_from
from smoothed.rng.rows import RowGenerator
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh

attacks = pytest.mark.parametrize("attack", [square, nattack, zoo])
norms = pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 0.4)])
directions = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])


class Counter:
    """A model that knows which image each query is a version of: the nearest one. It keeps their margins in order."""

    def __init__(self, model, inputs, labels):
        self.model, self.inputs, self.labels = model, inputs.flatten(1), labels
        self.margins = [[] for _ in inputs]

    def __call__(self, images):
        assert images.min() >= 0
        assert images.max() <= 1
        answers = self.model(images)
        nearest = torch.cdist(images.flatten(1), self.inputs).argmin(1)
        for row, value in zip(nearest.tolist(), margin(answers, self.labels[nearest]).tolist(), strict=True):
            self.margins[row].append(value)
        return answers

    @property
    def counts(self):
        return [len(margins) for margins in self.margins]


def distance(attacked, inputs, norm):
    difference = (attacked - inputs).flatten(1)
    return difference.abs().amax(1) if norm == "linf" else difference.norm(dim=1)


@attacks
class TestBudget:
    @pytest.mark.parametrize("eot_samples", [1, 3])
    @pytest.mark.parametrize("max_queries", [3, 4, 50, 301])
    def test_queries_are_counted_and_bounded(self, attack, max_queries, eot_samples, network, images, labels):
        counter = Counter(network, images, labels)
        queries = Queries(counter, max_queries=max_queries, chunk_size=64)
        attack(queries, images, labels, eps=0.05, eot_samples=eot_samples, generator=seeded(0))
        assert queries.spent.tolist() == counter.counts
        assert max(counter.counts) <= max_queries
        assert any(margins[0] < 0 for margins in counter.margins)
        for margins in counter.margins:
            if max(margins) <= 0:  # one whose attack failed used all that buys a step: at most two candidates are left
                assert len(margins) > max_queries - 3 * eot_samples

    def test_an_image_that_is_wrong_takes_one_query_and_stays(self, attack, network, images, labels):
        wrong = (labels + 1) % 4
        queries = Queries(network)
        attacked = attack(queries, images, torch.where(network(images).argmax(1) == wrong, labels, wrong), eps=0.01)
        assert torch.equal(attacked, images)
        assert (queries.spent == 1).all()

    def test_none_is_asked_after_its_success(self, attack, network, images):
        """An image ends with the batch of its first success. ZOO's queries for differences are no candidates."""
        labels = network(images).argmax(1)
        counter = Counter(network, images, labels)
        attacked = attack(counter, images, labels, eps=0.05, max_queries=300, generator=seeded(0))
        ends = {square: range(1, 301), nattack: (1, 102, 203, 300), zoo: (1, 258, 299)}[attack]
        successes = 0
        for row, margins in enumerate(counter.margins):
            hits = [at for at, value in enumerate(margins) if value > 0 and (attack is not zoo or at + 1 in ends)]
            assert len(margins) == (next(end for end in ends if end > hits[0]) if hits else ends[-1])
            assert not hits or margin(network(attacked[[row]]), labels[[row]]).item() > -1e-6
            successes += bool(hits)
        assert 0 < successes < len(images)

    @pytest.mark.slow
    def test_confidence_asks_for_more(self, attack, network, images):
        labels = network(images).argmax(1)
        ends = {}
        for confidence in (0.0, 0.02, math.inf):
            queries = Queries(network, max_queries=300)
            attacked = attack(queries, images, labels, eps=0.1, confidence=confidence, generator=seeded(0))
            ends[confidence] = margin(network(attacked), labels)
            done = queries.spent < 298
            assert (ends[confidence][done] > confidence - 1e-6).all()
            assert done.any() == (confidence < math.inf)
        assert ends[math.inf].mean() > ends[0.02].mean() > ends[0.0].mean()


@attacks
@norms
class TestStrength:
    @pytest.mark.slow
    @directions
    def test_stays_inside_and_beats_noise(self, attack, norm, eps, targeted, network, images, labels):
        """As many tries of noise as queries, at the ends of each pixel (l2: on the sphere), the best for each image."""
        generator, sign, tries = seeded(0), -1 if targeted else 1, []
        inputs = images.mul(1.2).sub(0.1).clamp(0, 1)
        for _ in range(200):
            noise = torch.randn(inputs.shape, generator=generator)
            noise = noise.sign() if norm == "linf" else noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            with torch.no_grad():
                tries.append(sign * margin(network((inputs + eps * noise).clamp(0, 1)), labels))
        options = {"eps": eps, "norm": norm, "targeted": targeted, "max_queries": 200, "confidence": math.inf}
        attacked = attack(network, inputs, labels, generator=generator, **options)
        assert attacked.dtype == inputs.dtype
        assert distance(attacked, inputs, norm).max() <= eps + 1e-6
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        value = sign * margin(network(attacked), labels)
        assert (value > torch.stack(tries).amax(0)).all()

    def test_success_rises_with_queries(self, attack, norm, eps, network, images):
        labels = network(images).argmax(1)
        successes = []
        for max_queries in (3, 30, 200):
            options = {"eps": 2 * eps, "norm": norm, "max_queries": max_queries}
            attacked = attack(network, images, labels, generator=seeded(1), **options)
            successes.append(int((network(attacked).argmax(1) != labels).sum()))
        assert successes == sorted(successes)
        assert successes[-1] >= successes[0] + 3

    def test_logits_and_log_shares_are_the_same_to_it(self, attack, norm, eps, network, images, labels):
        options = {"eps": eps, "norm": norm, "max_queries": 60}
        ends = [
            attack(Queries(network, sees=sees), images, labels, generator=seeded(1), **options)
            for sees in ("logits", "shares")
        ]
        values = [margin(network(end), labels) for end in ends]
        assert (values[0] - values[1]).abs().max() < 0.02  # roundings decide a step now and then
        assert torch.equal(values[0] > 0, values[1] > 0)

    def test_zero_eps_returns_the_inputs(self, attack, norm, eps, network, images, labels):
        del eps
        assert torch.equal(attack(network, images, labels, eps=0.0, norm=norm, max_queries=20), images) or (
            attack is nattack  # to the rounding of tanh
            and (attack(network, images, labels, eps=0.0, norm=norm, max_queries=20) - images).abs().max() < 1e-6
        )


@attacks
class TestManners:
    @pytest.mark.parametrize("mode", [True, False])
    def test_the_model_is_untouched(self, attack, mode, network, images, labels):
        network.train(mode)
        inject(network, weights=PNI(), layers=["7"])
        tensors, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
        seen = []
        handle = network[3].register_forward_hook(lambda module, args, output: seen.append(module.training))  # noqa: ARG005
        state, kept = torch.get_rng_state(), images.clone()
        inputs = images.requires_grad_()
        with noise_from(network, Fresh(seeded(1))):
            attacked = attack(network, inputs, labels, eps=0.03, max_queries=10, generator=seeded(2))
        handle.remove()
        assert not attacked.requires_grad
        assert inputs.grad is None
        assert torch.equal(inputs, kept)
        assert not any(seen)
        assert torch.equal(torch.get_rng_state(), state)
        assert [module.training for module in network.modules()] == modes
        assert all(parameter.grad is None for parameter in network.parameters())
        assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())

    @norms
    def test_the_generator_decides(self, attack, norm, eps, network, images, labels):
        options = {"eps": eps, "norm": norm, "max_queries": 20}
        first, second, other = (
            attack(network, images, labels, generator=seeded(seed), **options) for seed in (1, 1, 2)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first, other)

    @norms
    def test_an_image_does_not_depend_on_the_others(self, attack, norm, eps, network, images):
        """With `RowGenerator`, whatever the part of the batch, and although others leave at other times."""
        labels = network(images).argmax(1)
        options = {"eps": 2 * eps, "norm": norm, "max_queries": 40}
        whole = attack(network, images, labels, generator=RowGenerator(4), **options)
        parts = [
            attack(network, images[cut], labels[cut], generator=RowGenerator(4, cut.start), **options)
            for cut in (slice(0, 5), slice(5, 16))
        ]
        apart = (torch.cat(parts) - whole).flatten(1).abs().amax(1) > 1e-3
        assert apart.sum() <= 2  # roundings of batches of another size may decide a step

    def test_double_precision(self, attack, network, images, labels):
        network.double()
        attacked = attack(network.forward, images.double(), labels, eps=0.05, max_queries=20)
        assert attacked.dtype == torch.float64

    def test_a_batch_of_a_random_classifier(self, attack, network, images, labels):
        """Each pass draws anew; all of the budget is spent, and the end is inside the ball."""
        inject(network, weights=PNI(initial=1.0))
        counter = Counter(network, images, labels)
        options = {"eps": 0.05, "max_queries": 60, "eot_samples": 2, "confidence": math.inf}
        with noise_from(network, Fresh(seeded(0))):
            attacked = attack(counter, images, labels, generator=seeded(0), **options)
        assert distance(attacked, images, "linf").max() <= 0.05 + 1e-6
        assert all(56 <= count <= 60 for count in counter.counts)


class Coin:
    """A margin of -1 and normal noise, whatever the image: what an attack takes for success is luck."""

    def __init__(self, generator):
        self.generator = generator

    def __call__(self, images):
        noise = torch.randn(len(images), generator=self.generator)
        return torch.stack([torch.ones_like(noise), noise], 1)


@attacks
def test_averaging_withstands_luck(attack, images):
    """P(noise > 1) = 0.16 for one draw; of sixteen averaged, four deviations."""
    labels, shares = torch.zeros(16, dtype=torch.int64), []
    options = {"population": 4} if attack is nattack else {}
    for eot_samples in (1, 16):
        queries = Queries(Coin(seeded(0)), max_queries=25 * eot_samples)
        attack(queries, images, labels, eps=0.1, eot_samples=eot_samples, generator=seeded(0), **options)
        shares.append((queries.spent < 20 * eot_samples).float().mean())
    assert shares[0] > 0.5 or attack is zoo  # which asks about two images alone that may be adversarial
    assert shares[1] == 0


class TestPursuit:
    @pytest.fixture
    def model(self):
        """The logits of two classes: 0 and the image's first pixel less 0.5."""
        return lambda images: torch.stack([torch.zeros(len(images)), images[:, 0, 0, 0] - 0.5], 1)

    def test_the_smaller_bound_holds(self, model):
        inputs, labels = torch.zeros(1, 1, 1, 1), torch.tensor([0])
        for own, given, bound in ((20, None, 20), (None, 30, 30), (20, 30, 20), (40, 30, 30), (None, None, 1000)):
            for eot_samples, budget in ((1, bound), (3, bound // 3)):
                queries = Queries(model, max_queries=given)
                search = QueryAttack("test", queries, inputs, labels, max_queries=own, eot_samples=eot_samples)
                assert search.max_candidates == budget

    def ask(self, search, brightness):
        candidates = torch.tensor(brightness).view(len(brightness), -1, 1, 1, 1)
        return search.ask(candidates, search.active)

    def test_keeps_the_best_success_and_lets_its_image_go(self, model):
        inputs = torch.full((3, 1, 1, 1), 0.25)
        search = QueryAttack("test", model, inputs, torch.zeros(3, dtype=torch.int64))
        values = self.ask(search, [[0.1, 0.2], [0.75, 1.0], [0.5, 0.3]])  # a tie is no success
        assert torch.allclose(values, torch.tensor([[-0.4, -0.3], [0.25, 0.5], [0.0, -0.2]]))
        assert search.active.tolist() == [0, 2]
        self.ask(search, [[0.75], [0.4]])
        assert search.active.tolist() == [2]
        assert search.result(torch.full_like(inputs, 0.3)).flatten().tolist() == pytest.approx([0.75, 1.0, 0.3])

    def test_what_is_only_measured_is_no_success(self, model):
        search = QueryAttack("test", model, torch.full((1, 1, 1, 1), 0.25), torch.tensor([0]))
        assert search.measure(torch.full((1, 1, 1, 1, 1), 0.9), search.active).item() == pytest.approx(0.4)
        assert search.active.tolist() == [0]
        assert search.queries.spent.tolist() == [1]

    def test_targets(self, model):
        search = QueryAttack("test", model, torch.full((2, 1, 1, 1), 0.5), torch.tensor([0, 1]), targeted=True)
        values = self.ask(search, [[0.75], [0.25]])
        assert torch.allclose(values, torch.tensor([[-0.25], [-0.25]]))
        self.ask(search, [[0.25], [0.25]])
        assert search.active.tolist() == [1]

    def test_groups_fill_a_pass(self, model):
        search = QueryAttack("test", Queries(model, chunk_size=10), torch.rand(5, 1, 1, 1), torch.zeros(5).long())
        assert [len(rows) for rows in search.batches(4)] == [2, 2, 1]
        assert [len(rows) for rows in search.batches(30)] == [1] * 5


@attacks
def test_errors(attack, network):
    def call(**change):
        inputs = torch.full((2, 3, 8, 8), 0.5)
        arguments = {"model": network, "inputs": inputs, "labels": torch.tensor([0, 1]), "eps": 0.1, **change}
        inspect.unwrap(attack)(**arguments)

    check_refusals(
        call,
        [
            ({"inputs": torch.full((2, 3, 8, 8), 2.0)}, "inputs: expected images in"),
            ({"labels": torch.tensor([0])}, r"labels: expected int64 classes of shape \(2,\)"),
            ({"labels": torch.tensor([0, 9])}, r"labels: expected classes in 0\.\.3"),
            ({"eps": -1.0}, "eps: expected a finite number of at least 0, got -1"),
            ({"norm": "l1"}, "norm: expected one of linf, l2, got 'l1'"),
            ({"max_queries": 0}, "max_queries: expected an integer of at least 1, got 0"),
            ({"eot_samples": 0}, "eot_samples: expected an integer of at least 1, got 0"),
            ({"max_queries": 3, "eot_samples": 4}, "max_queries: expected at least eot_samples, 4, got 3"),
            ({"model": lambda inputs: inputs.flatten()}, r"model: expected float logits of shape \(2, K\)"),
            (
                {"model": Queries(nn.Flatten(), sees="labels")},
                "sees: expected logits or shares, since .* compares scores, got labels",
            ),
        ],
    )
