"""The engine against `Smoothed` with the same seed, and against literal counts of the draws that it made."""

import sys
import threading
import time
from collections import Counter
from concurrent.futures import wait

import pytest
import torch

from smoothed import Gaussian, NoisyClassifier, Smoothed
from smoothed.errors import ArgumentError
from smoothed.rng.sources import Keyed
from smoothed.serve.counting import Count
from smoothed.serve.engine import Engine
from smoothed.serve.metrics import ServiceMetrics
from smoothed.serve.refusals import Refusal
from smoothed.serve.settings import ServeSettings
from smoothed.serve.turns import VoteJob
from smoothed.smoothing.stopping import Confident, Exact
from smoothed.smoothing.votes import VOTES
from smoothed.utils.modes import eval_mode

SIGMA = 0.5
RULES = {"": None, "exact": Exact(), "confident": Confident(0.05)}


def make_job(image, total=24, vote="prediction", rule="exact", **options):
    return VoteJob(image, Count(VOTES[vote], total, RULES[rule]), rule, **options)


@pytest.fixture
def start():
    """A function that makes an engine, gives it jobs while it does not run yet, and starts it."""
    engines = []

    def start(served, jobs=(), seeds=(), **settings):
        engine = Engine(served, ServeSettings(**settings), ServiceMetrics())
        engines.append(engine)
        for number, job in enumerate(jobs):
            engine.submit(job, seeds[number] if seeds else None)
        engine.start()
        return engine

    yield start
    for engine in engines:
        engine.close()


def outcomes(jobs):
    return [job.future.result(timeout=20) for job in jobs]


VOTES_AND_RULES = [("prediction", "exact"), ("prediction", "confident"), ("soft", "exact"), ("weighted", "")]


@pytest.mark.parametrize(("vote", "rule"), VOTES_AND_RULES)
def test_a_vote_with_a_seed_is_that_of_smoothed(noisy_network, serve_model, start, images, vote, rule):
    job = make_job(images[3], vote=vote, rule=rule)
    served = serve_model(noisy_network)
    start(served, [job], [77])
    (outcome,) = outcomes([job])
    smoothed = Smoothed(served.voter, Gaussian(SIGMA), num_samples=24, vote=vote, stop=RULES[rule], seed=77)
    tally = smoothed.tally(images[3:4], votes={"own": vote}, stop=RULES[rule])["own"][24]
    assert torch.equal(outcome.tally.scores, tally.scores)
    assert torch.equal(outcome.tally.num_samples, tally.num_samples)
    fresh = Smoothed(noisy_network, Gaussian(SIGMA), num_samples=24, vote=vote, stop=RULES[rule], seed=77)
    assert outcome.tally.classes().tolist() == fresh.predict(images[3:4]).tolist()
    assert outcome.ended == (rule if int(tally.num_samples) < 24 else "num_samples")


def test_a_vote_with_a_seed_does_not_depend_on_the_others(noisy_network, serve_model, start, images):
    served = serve_model(noisy_network)
    alone = make_job(images[0], vote="soft", rule="")
    engine = start(served, [alone], [5])
    (expected,) = outcomes([alone])
    among = [make_job(images[number % 4], vote="soft", rule="") for number in range(6)]
    for job, seed in zip(among, [5, None, 6, None, None, 7], strict=True):
        engine.submit(job, seed)
    assert torch.equal(outcomes(among)[0].tally.scores, expected.tally.scores)


class Spy:
    """Records the keys of all draws that a noisy classifier makes: (seed, draw, position in the pass)."""

    def __init__(self, monkeypatch):
        self.passes = []
        one, several = NoisyClassifier.with_key, NoisyClassifier.stacked

        def with_key(classifier, inputs, key):
            draws = torch.as_tensor(key.draws).expand(len(inputs)).tolist()
            self.passes.append([*zip(inputs, [key.seed] * len(inputs), draws, key.images.tolist(), strict=True)])
            return one(classifier, inputs, key)

        def stacked(classifier, inputs, keys):
            self.passes.append(
                [
                    (image, key.seed, int(key.draw), number)
                    for key in keys
                    for image, number in zip(inputs, key.images.tolist(), strict=True)
                ]
            )
            return several(classifier, inputs, keys)

        monkeypatch.setattr(NoisyClassifier, "with_key", with_key)
        monkeypatch.setattr(NoisyClassifier, "stacked", stacked)

    def draws_of(self, image):
        """The keys of all draws of an image, in their order."""
        return [key[1:] for rows in self.passes for key in rows if torch.equal(key[0], image)]


def check_counts(spy, network, images, found):
    """No two draws of an image have the same key, and the votes are a literal count of the first of them."""
    noisy = NoisyClassifier(network, Gaussian(SIGMA))
    for image, outcome in zip(images, found, strict=True):
        keys = spy.draws_of(image)
        assert len({(seed, draw) for seed, draw, _ in keys}) == len(keys) >= int(outcome.tally.num_samples)
        counted = keys[: int(outcome.tally.num_samples)]
        with torch.no_grad(), eval_mode(noisy):
            logits = [
                noisy.with_key(image[None], Keyed(seed, draw, torch.tensor([number]))) for seed, draw, number in counted
            ]
        literal = torch.bincount(torch.cat(logits).argmax(1), minlength=4)
        assert literal.tolist() == outcome.tally.scores[0].tolist()


def test_requests_that_wait_share_passes_and_votes_of_an_image_never_share_a_draw(
    noisy_network, noise_kind, serve_model, start, images, monkeypatch
):
    served = serve_model(noisy_network, chunk_size=32)
    spy = Spy(monkeypatch)
    jobs = [make_job(image, rule="exact") for image in images[:6]]
    engine = start(served, jobs)
    found = outcomes(jobs)
    engine.close()
    passes = [rows for rows in spy.passes if not any(torch.equal(row[0], torch.full((3, 8, 8), 0.5)) for row in rows)]
    assert max(len({number for *_, number in rows}) for rows in passes) == 6  # all share a pass
    check_counts(spy, noisy_network, images[:6], found)
    if noise_kind == "weights":  # images of a pass see the same weights
        assert all(len({draw for _, _, draw, _ in rows}) * 6 >= len(rows) for rows in passes)


@pytest.mark.slow
@pytest.mark.parametrize("noise_kind", ["weights"], indirect=True)
def test_draws_that_are_stacked_in_a_pass_are_not_shared_by_votes_of_an_image(
    noisy_network, serve_model, start, images, monkeypatch
):
    served = serve_model(noisy_network, fast=True)
    monkeypatch.setattr(served.voter, "_stacking_pays", lambda *_: True)
    engine = start(served)
    while engine.state == "loading":
        time.sleep(0.01)
    spy = Spy(monkeypatch)
    jobs = [make_job(image, rule="exact") for image in images[:3]]
    for job in jobs:
        engine.submit(job)
    found = outcomes(jobs)
    engine.close()
    assert max(len({draw for _, _, draw, _ in rows}) for rows in spy.passes) > 1
    check_counts(spy, noisy_network, images[:3], found)


def test_the_same_image_twice_gets_other_draws(noisy_network, serve_model, start, images, monkeypatch):
    served = serve_model(noisy_network)
    spy = Spy(monkeypatch)
    first = make_job(images[0], rule="")
    engine = start(served, [first])
    outcomes([first])
    second = make_job(images[0], rule="")
    engine.submit(second)
    outcomes([second])
    keys = Counter(spy.draws_of(images[0]))
    assert len(keys) == 48
    assert set(keys.values()) == {1}
    assert len({seed for seed, _, _ in keys}) == 1  # within the minute


def test_a_deadline_returns_what_is_known_after_one_pass(noisy_network, serve_model, start, images):
    job = make_job(images[0], total=24, rule="", deadline=time.monotonic() - 1)
    start(serve_model(noisy_network, chunk_size=4), [job])
    (outcome,) = outcomes([job])
    assert outcome.ended == "deadline"
    draws = int(outcome.tally.num_samples)
    assert 1 <= draws < 24
    assert float(outcome.tally.scores.sum()) == draws


def test_a_deadline_bounds_a_vote_with_a_seed(network, serve_model, start, images):
    job = make_job(images[0], total=24, rule="", deadline=time.monotonic() - 1)
    start(serve_model(network, chunk_size=4), [job], [3])
    (outcome,) = outcomes([job])
    assert (outcome.ended, int(outcome.tally.num_samples)) == ("deadline", 4)


def test_sigma_of_a_request_is_that_of_its_draws(network, serve_model, start, images):
    jobs = [make_job(images[0], rule="", sigma=sigma) for sigma in (0.0, 0.4)]
    start(serve_model(network), jobs)
    still, noisy = (outcome.tally.scores[0] for outcome in outcomes(jobs))
    assert still.max() == 24  # without noise all draws agree
    assert noisy.max() < 24, "take an image nearer to the border of its class"


class Gated(torch.nn.Module):
    """A network whose passes wait until they are let through, one by one."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.closed = False
        self.waiting = threading.Semaphore(0)
        self.passing = threading.Semaphore(0)
        self.rows = []

    def forward(self, inputs):
        if self.closed:
            self.waiting.release()
            self.passing.acquire()
        self.rows.append(len(inputs))
        return self.network(inputs)

    def await_pass(self):
        assert self.waiting.acquire(timeout=10)


@pytest.fixture
def gated(network, serve_model, start):
    """An engine whose network waits at each pass, and the network."""
    gate = Gated(network)
    served = serve_model(gate)
    engine = start(served)
    while engine.state == "loading":
        time.sleep(0.01)
    gate.closed = True
    gate.rows.clear()
    yield engine, gate
    gate.closed = False
    gate.passing.release(1000)


def test_a_vote_joins_the_next_pass(gated, images):
    engine, gate = gated
    first, second = (make_job(image, rule="") for image in images[:2])
    engine.submit(first)
    gate.await_pass()
    engine.submit(second)
    gate.closed = False
    gate.passing.release()
    outcomes([first, second])
    assert gate.rows[0] == 24  # the first pass was full of draws of the first
    assert sum(gate.rows) == 48


def test_a_vote_whose_client_has_gone_leaves(gated, images):
    engine, gate = gated
    job = make_job(images[0], total=400, rule="")
    engine.submit(job)
    gate.await_pass()
    job.future.cancel()
    gate.closed = False
    gate.passing.release()
    while engine.unfinished[0]:
        time.sleep(0.01)
    other = make_job(images[1], rule="")
    engine.submit(other)
    outcomes([other])
    assert sum(gate.rows) <= 128 + 24


def test_a_full_queue_refuses_and_says_when_to_come_back(gated, images):
    engine, gate = gated
    jobs = [make_job(images[0]) for _ in range(engine.settings.queue)]
    for job in jobs:
        engine.submit(job)
    with pytest.raises(Refusal, match="queue: expected fewer than 64 at the same time") as refused:
        engine.submit(make_job(images[0]))
    assert refused.value.status == 503
    assert int(refused.value.headers["Retry-After"]) >= 1
    gate.closed = False
    gate.passing.release()
    outcomes(jobs)
    engine.submit(again := make_job(images[0]))
    outcomes([again])


def test_draining_ends_what_was_taken_and_takes_no_more(gated, images):
    engine, gate = gated
    job = make_job(images[0])
    engine.submit(job)
    gate.await_pass()
    engine.drain(10)
    assert engine.state == "draining"
    with pytest.raises(Refusal, match="stopping"):
        engine.submit(make_job(images[1]))
    gate.closed = False
    gate.passing.release()
    assert int(outcomes([job])[0].tally.num_samples) > 0


def test_draining_fails_what_takes_longer_than_the_grace_period(gated, images):
    engine, gate = gated
    jobs = [make_job(image, total=400, rule="") for image in images[:2]]
    engine.submit(jobs[0])
    gate.await_pass()
    engine.submit(jobs[1])
    engine.drain(0.0)
    gate.passing.release()
    wait([job.future for job in jobs], timeout=10)
    assert all(isinstance(job.future.exception(), Refusal) for job in jobs)


class BadForBright(torch.nn.Module):
    """A network that returns NaN for bright images, and an error for pictures that are all black."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        if float(inputs.abs().max()) == 0:
            raise RuntimeError("a broken network")
        bright = inputs.mean((1, 2, 3), keepdim=True)[:, :, 0, 0] > 0.9
        return torch.where(bright, torch.nan, self.network(inputs))


def test_an_error_of_one_image_does_not_reach_the_others(network, serve_model, start, images, caplog):
    served = serve_model(BadForBright(network))
    jobs = [make_job(image, sigma=0.0, rule="") for image in (images[0], torch.ones(3, 8, 8), images[1])]
    engine = start(served, jobs)
    assert isinstance(jobs[1].future.exception(timeout=20), ArgumentError)
    assert [outcome.ended for outcome in outcomes([jobs[0], jobs[2]])] == ["num_samples"] * 2
    broken = make_job(torch.zeros(3, 8, 8), sigma=0.0)
    engine.submit(broken)
    assert isinstance(broken.future.exception(timeout=20), RuntimeError)
    engine.submit(good := make_job(images[0]))
    outcomes([good])
    assert "a request failed" in caplog.text


def test_an_error_at_the_deadline_does_not_reach_the_others(network, serve_model, start, images, caplog):
    late = time.monotonic() - 1
    jobs = [make_job(image, sigma=0.0, rule="", deadline=late) for image in (images[0], torch.ones(3, 8, 8), images[1])]
    start(serve_model(BadForBright(network), chunk_size=6), jobs)
    assert isinstance(jobs[1].future.exception(timeout=20), ArgumentError)
    assert [outcome.ended for outcome in outcomes([jobs[0], jobs[2]])] == ["deadline"] * 2
    assert "a vote failed" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_whose_thread_ends_refuses_what_waits(network, serve_model, start, images, monkeypatch):
    engine = start(serve_model(network))
    monkeypatch.setattr(engine, "_seat_arrivals", sys.exit)
    engine.submit(job := make_job(images[0]))
    assert isinstance(job.future.exception(timeout=20), Refusal)
    with pytest.raises(Refusal, match="stopping"):
        engine.submit(make_job(images[1]))


def test_requests_keep_their_seed_when_it_is_renewed(network, serve_model, start, images, monkeypatch):
    served = serve_model(network, chunk_size=4)
    spy = Spy(monkeypatch)
    jobs = [make_job(image, total=40, rule="") for image in images[:3]]
    engine = start(served, jobs[:1], seed_seconds=1e-9)
    outcomes(jobs[:1])
    for job in jobs[1:]:
        engine.submit(job)
    outcomes(jobs[1:])
    seeds = [{seed for seed, _, _ in spy.draws_of(image)} for image in images[:3]]
    assert [len(own) for own in seeds] == [1, 1, 1]
    assert len(set.union(*seeds)) == 3
