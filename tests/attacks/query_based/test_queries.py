"""Counted answers against a model that counts by itself, and against averages taken by hand."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from refusing import check_refusals
from smoothed import Gaussian, Smoothed
from smoothed.attacks import Queries
from smoothed.attacks.query_based.queries import as_queries, require_scores
from smoothed.errors import ArgumentError


class Drawn:
    """The m-th call adds m times a fixed direction to linear logits: a random model whose draws the test knows."""

    def __init__(self):
        self.weight = torch.tensor([[1.0, -1.0, 0.5, 0.0], [0.0, 1.0, -0.5, 1.0], [0.3, 0.3, 0.3, 0.3]])
        self.sizes = []

    def draw(self, images, call):
        return images.flatten(1) @ self.weight.T + call * torch.tensor([0.0, 0.7, -0.2])

    def __call__(self, images):
        self.sizes.append(len(images))
        return self.draw(images, len(self.sizes) - 1)


@pytest.fixture
def batch(generator):
    return torch.rand(7, 1, 2, 2, generator=generator)


@pytest.fixture
def begun(batch):
    def begin(model, **options):
        queries = Queries(model, **options)
        queries.begin(batch)
        return queries

    return begin


def every(batch):
    return torch.arange(len(batch))


class TestAnswers:
    @pytest.mark.parametrize("eot_samples", [1, 3])
    def test_averages_of_what_is_seen(self, eot_samples, batch, begun):
        draws = torch.stack([Drawn().draw(batch, call) for call in range(eot_samples)])
        votes = torch.zeros(eot_samples, 7, 3)
        for call, row in [(call, row) for call in range(eot_samples) for row in range(7)]:
            votes[call, row, draws[call, row].tolist().index(draws[call, row].max())] = 1
        expected = {"logits": draws.mean(0), "shares": draws.softmax(2).mean(0).log(), "labels": votes.mean(0)}
        for sees, answers in expected.items():
            asked = begun(Drawn(), sees=sees).ask(batch, every(batch), eot_samples)
            assert_close(asked, answers, msg=lambda text, sees=sees: f"{sees}: {text}")

    @pytest.mark.parametrize(("chunk_size", "sizes"), [(7, [7]), (6, [4, 3]), (3, [3, 2, 2]), (1, [1] * 7)])
    def test_chunks_of_about_equal_size(self, chunk_size, sizes, batch, begun):
        model = Drawn()
        begun(model, chunk_size=chunk_size).ask(batch, every(batch))
        assert model.sizes == sizes

    def test_each_answer_of_an_average_has_a_pass_of_its_own(self, batch, begun):
        model = Drawn()
        begun(model, chunk_size=4).ask(batch, every(batch), 3)
        assert model.sizes == [4, 4, 4, 3, 3, 3]

    def test_a_share_of_0_has_a_finite_logarithm(self, batch, begun):
        answers = begun(lambda images: images.new_tensor([[0.0, 1000.0]]).repeat(len(images), 1), sees="shares").ask(
            batch, every(batch)
        )
        assert answers.isfinite().all()
        assert (answers[:, 0] < -60).all()

    def test_precision_is_float32_at_least(self, batch, begun):
        for dtype, answered in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
            model = lambda images, dtype=dtype: images.flatten(1).to(dtype)  # noqa: E731
            assert begun(model).ask(batch, every(batch)).dtype == answered

    def test_of_a_smoothed_classifier(self, batch, begun):
        """Its `log_probs` come back as they are, and in eval mode, though only a method was handed over."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout(0.9))
        modes = []
        network[2].register_forward_hook(lambda module, args, output: modes.append(module.training))  # noqa: ARG005
        smoothed, twin = (Smoothed(network, Gaussian(0.5), num_samples=20, seed=1) for _ in range(2))
        answers = begun(smoothed.train().log_probs, sees="shares").ask(batch, every(batch))
        assert not any(modes)
        assert all(module.training for module in smoothed.modules())
        assert_close(answers, twin.eval().log_probs(batch))


class TestCounts:
    def test_spent_and_affords(self, batch, begun):
        queries = begun(Drawn(), max_queries=5)
        queries.ask(batch[[0, 0, 3]], torch.tensor([0, 0, 3]), 2)
        assert queries.spent.tolist() == [4, 0, 0, 2, 0, 0, 0]
        assert queries.affords(torch.tensor([0, 1, 3])).tolist() == [True] * 3
        assert queries.affords(torch.tensor([0, 1, 3]), 2).tolist() == [False, True, True]

    def test_too_many_are_refused_before_any_is_asked(self, batch, begun):
        model = Drawn()
        queries = begun(model, max_queries=3)
        with pytest.raises(ArgumentError, match="max_queries: expected at most 3 queries per image, got 4"):
            queries.ask(batch[:2], torch.tensor([0, 0]), 2)
        assert model.sizes == []
        assert queries.spent.sum() == 0

    def test_without_a_bound(self, batch, begun):
        queries = begun(Drawn())
        queries.ask(batch, every(batch), 100)
        assert queries.affords(every(batch), 10**9).all()

    def test_an_attack_begins_anew(self, batch, begun):
        queries = begun(Drawn(), max_queries=1)
        queries.ask(batch, every(batch))
        assert as_queries(queries, batch[:2]) is queries
        assert queries.spent.tolist() == [0, 0]

    def test_a_model_becomes_unbounded_queries_of_logits(self, batch):
        model = Drawn()
        queries = as_queries(model, batch)
        assert (queries.model, queries.sees, queries.max_queries) == (model, "logits", None)


class TestErrors:
    def test_argument(self):
        def call(**options):
            Queries(Drawn(), **options)

        check_refusals(
            call,
            [
                ({"sees": "label"}, "sees: expected one of logits, shares, labels, got 'label'; did you mean labels"),
                ({"max_queries": 0}, "max_queries: expected an integer of at least 1, got 0"),
                ({"chunk_size": 0}, "chunk_size: expected an integer of at least 1, got 0"),
            ],
        )

    @pytest.mark.parametrize("sees", ["logits", "shares", "labels"])
    @pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
    def test_answers_that_are_no_numbers(self, sees, wrong, batch, begun):
        queries = begun(lambda images: images.flatten(1) + wrong, sees=sees)
        with pytest.raises(ArgumentError, match="model: expected finite logits, got NaN or infinity"):
            queries.ask(batch, every(batch))

    def test_answers_that_are_no_logits(self, batch, begun):
        with pytest.raises(ArgumentError, match=r"model: expected float logits of shape \(7, K\)"):
            begun(lambda images: images.argmax(1)).ask(batch, every(batch))

    def test_labels_are_no_scores(self):
        with pytest.raises(
            ArgumentError, match=r"sees: expected logits or shares, since square compares scores, got labels"
        ):
            require_scores(Queries(Drawn(), sees="labels"), "square")
        for sees in ("logits", "shares"):
            require_scores(Queries(Drawn(), sees=sees), "square")
