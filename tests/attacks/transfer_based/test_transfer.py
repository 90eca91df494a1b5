"""Transfer against the direct attack, on linear sources of which it is known who wins, and by the queries it makes."""

import inspect
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from refusing import check_refusals
from smoothed.attacks import Queries, margin, named_attack, pgd
from smoothed.attacks.attack import Attack
from smoothed.attacks.transfer_based.ensemble import Ensemble
from smoothed.attacks.transfer_based.transfer import transfer
from smoothed.rng.rows import RowGenerator
from smoothed.rng.seeds import seeded

EPS = 8 / 255


@pytest.fixture
def attack():
    return named_attack("pgd", eps=EPS, steps=4)


def never(images):
    raise AssertionError(f"the target was asked about {len(images)} images")


def other(seed):
    """Another network than the fixture's, from the same family."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


class TestOneSource:
    def test_an_identical_source_is_the_direct_attack(self, network, images, labels, attack):
        direct = attack(network, images, labels, generator=seeded(1))
        for sources in (network, [network]):
            made = transfer(network, images, labels, sources=sources, attack=attack, generator=seeded(1))
            assert torch.equal(made, direct)

    def test_the_target_is_never_asked(self, network, images, labels, attack):
        for query_target in (False, True):
            transfer(never, images, labels, sources=network, attack=attack, query_target=query_target)
        transfer(never, images, labels, sources=[network, network], attack=attack)

    def test_a_module_that_holds_a_sequence_is_one_source(self, images, labels, attack):
        source = other(3)
        assert len(source) == 4
        assert torch.equal(
            transfer(never, images, labels, sources=source, attack=attack, generator=seeded(1)),
            attack(source, images, labels, generator=seeded(1)),
        )

    def test_it_beats_noise_on_a_network_of_the_same_task(self):
        """Two networks fitted to one linear rule: what fools one fools the other more than random corners do."""
        rule = torch.randn(192, generator=seeded(5))
        images = torch.rand(256, 3, 8, 8, generator=seeded(6))
        labels = (((images - 0.5).flatten(1) @ rule) > 0).long()
        networks = [other(1), other(2)]
        for network in networks:
            optimizer = torch.optim.Adam(network.parameters(), 1e-2)
            for _ in range(60):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images), labels).backward()
                optimizer.step()
        attack = named_attack("pgd", eps=0.1)
        made = transfer(networks[0], images, labels, sources=networks[1], attack=attack, generator=seeded(1))
        noisy = (images + 0.1 * torch.randn(images.shape, generator=seeded(2)).sign()).clamp(0, 1)
        accuracies = [(networks[0](each).argmax(1) == labels).double().mean() for each in (images, noisy, made)]
        assert accuracies[0] > 0.9
        assert accuracies[1] > accuracies[2] + 0.3


class TestSeveralSources:
    def test_they_are_attacked_as_their_ensemble(self, network, images, labels, attack):
        sources = [network, other(1), other(2)]
        for average in ("probabilities", "logits"):
            made = transfer(never, images, labels, sources=sources, attack=attack, average=average, generator=seeded(1))
            ensemble = Ensemble(sources, average=average)
            assert torch.equal(made, attack(ensemble, images, labels, generator=seeded(1)))

    @pytest.mark.parametrize("targeted", [False, True])
    @pytest.mark.parametrize("sees", ["logits", "shares"])
    def test_each_image_keeps_the_candidate_of_the_largest_margin(self, targeted, sees, images, labels):
        attack = _settled(targeted=targeted)
        sources, target = [other(1), other(2), other(3)], other(5)
        queries = Queries(target, sees=sees)
        options = {"sources": sources, "attack": attack, "targeted": targeted, "query_target": True}
        chosen = transfer(queries, images, labels, generator=seeded(1), **options)
        generator, sign = seeded(1), -1 if targeted else 1
        made = [attack(each, images, labels, generator=generator) for each in (Ensemble(sources), *sources)]
        with torch.no_grad():
            values = torch.stack([sign * margin(target(each), labels) for each in made])
        assert_close(sign * margin(target(chosen), labels), values.amax(0), rtol=0, atol=1e-5)
        winners = values.argmax(0)
        assert len(winners.unique()) > 1
        assert torch.equal(chosen, torch.stack(made)[winners, range(16)])
        assert queries.spent.tolist() == [4] * 16

    def test_labels_alone_choose_what_fools(self, network, images, labels, attack):
        """The target is the last source, whose own example should fool it; where others do so, the first stays."""
        labels = network(images).argmax(1)
        attack = named_attack("pgd", eps=0.2)
        sources = [lambda inputs: inputs.flatten(1)[:, :4], network]
        queries = Queries(network, sees="labels")
        chosen = transfer(
            queries, images, labels, sources=sources, attack=attack, query_target=True, generator=seeded(1)
        )
        generator = seeded(1)
        made = torch.stack(
            [attack(each, images, labels, generator=generator) for each in (Ensemble(sources), *sources)]
        )
        fooled = torch.stack([network(each).argmax(1) != labels for each in made])
        assert torch.equal(chosen, made[fooled.int().argmax(0), range(16)])

    @pytest.mark.parametrize("bound", [1, 2, 3])
    def test_queries_stay_within_their_bound(self, bound, network, images, labels, attack):
        """With one query an image has its ensemble's example; each more lets one source's take part."""
        sources = [other(1), network]
        queries = Queries(network, max_queries=bound)
        options = {"sources": sources, "attack": attack, "query_target": True}
        chosen = transfer(queries, images, labels, generator=seeded(1), **options)
        assert queries.spent.tolist() == [bound] * 16
        generator = seeded(1)
        made = [attack(each, images, labels, generator=generator) for each in (Ensemble(sources), *sources)][:bound]
        values = torch.stack([margin(network(each), labels) for each in made]).argmax(0)
        assert torch.equal(chosen, torch.stack(made)[values, range(16)])


def _settled(*, targeted):
    return lambda model, inputs, labels, generator=None: pgd(
        model, inputs, labels, eps=EPS, steps=4, targeted=targeted, generator=generator
    )


def test_it_is_an_attack_when_configured(network, images, labels, attack):
    configured = partial(transfer, sources=network, attack=attack)
    assert isinstance(configured, Attack)
    made = configured(never, images, labels, generator=RowGenerator(3))
    parts = [configured(never, images[cut], labels[cut], generator=RowGenerator(3, cut.start)) for cut in _HALVES]
    # Gradients that almost vanish may round to either sign in a batch of another size.
    assert ((torch.cat(parts) - made).abs() > 1e-6).float().mean() < 0.002


_HALVES = (slice(0, 5), slice(5, 16))


def test_models_are_left_as_they_were(network, images, labels, attack):
    sources = [network.train(), other(1).train()]
    target = other(2).train()
    before = torch.get_rng_state()
    transfer(target, images, labels, sources=sources, attack=attack, query_target=True, generator=seeded(1))
    for model in (*sources, target):
        assert all(module.training for module in model.modules())
        assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_errors(network, attack):
    def call(**change):
        arguments = {
            "model": network,
            "inputs": torch.full((2, 3, 8, 8), 0.5),
            "labels": torch.tensor([0, 1]),
            "sources": [network, network],
            "attack": attack,
            "query_target": True,
            **change,
        }
        inspect.unwrap(transfer)(**arguments)

    check_refusals(
        call,
        [
            ({"inputs": torch.full((2, 3, 8, 8), 2.0)}, "inputs: expected images in"),
            ({"labels": torch.tensor([0])}, r"labels: expected int64 classes of shape \(2,\)"),
            ({"labels": torch.tensor([0, 9])}, r"labels: expected classes in 0\.\.3"),
            ({"sources": []}, "sources: expected at least one classifier, got none"),
            ({"sources": ["resnet", "vgg"]}, "sources: expected a function or another callable, got .resnet"),
            ({"average": "votes"}, "average: expected one of probabilities, logits"),
            ({"model": lambda inputs: inputs}, r"model: expected float logits of shape \(2, K\)"),
        ],
    )
