"""The whole of AutoAttack, `standard` and `rand`, beside our own suite on the bundled network, at eps 8/255.

An image that a suite breaks stays broken: its adversarial example is there to be evaluated. So nothing is gained by
setting AutoAttack on images that ours broke already: our robust accuracy is above theirs by those that they break of
the ones that ours left standing. This is what is run, with every step and query of theirs.
"""

import logging

import pytest
import torch

import smoothed
from smoothed.acceleration.fusing import fuse
from smoothed.checkpoint import locate, read_header
from smoothed.data.sample import load_sample
from smoothed.evaluation.worst_case.batch import AttackTarget, attack_batch
from smoothed.evaluation.worst_case.protocol import WorstCaseProtocol
from smoothed.evaluation.worst_case.suite import deterministic_suite, expectation_suite
from smoothed.injection import noise_from, noiseless
from smoothed.rng.seeds import mix, seeded
from smoothed.rng.sources import Fresh
from smoothed.smoothing.config import NoiseConfig, SmoothingConfig
from smoothed.smoothing.noisy_classifier import NoisyClassifier

pyautoattack = pytest.importorskip("pyautoattack")
MODEL, EPS, CLASSES = "resnet20-cni-w", 8 / 255, 10
DRAWS = 20  # of a gradient of `rand`


@pytest.fixture(scope="module")
def network():
    return smoothed.load(MODEL).eval().requires_grad_(False)


def images_of(count):
    sample = load_sample().first(count)
    return sample.images / 255, sample.labels


def our_worst(target, suite, inputs, labels):
    """The worst examples of the suite (N, C, H, W), from the steps that an evaluation stores."""
    steps = {}

    def compute_once(name, compute):
        steps[name] = compute()
        return steps[name]

    attack_batch(target, suite, inputs, labels, seed=0, compute_once=compute_once)
    worst, standing = inputs.clone(), steps["clean"]["right"] > 0
    for entry in suite:
        if entry.name in steps:
            rows, step = standing.nonzero()[:, 0], steps[entry.name]
            worst[rows[step["worse"]]] = step["examples"]
            standing[rows] &= ~step["worse"] | (step["right"] > 0)
    return worst


def assert_in_the_ball(attacked, inputs):
    assert (attacked - inputs).abs().max() <= EPS + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1


class TestStandard:
    """100 images, and the mean network: all noise off. One more in 200 would be half an image here: none is allowed.

    Ours is the worst-case suite for a network without noise, from one start of each attack instead of its two, which
    can only leave more to theirs. Each image that stands takes 1,900 gradients and 5,000 queries of theirs.
    """

    @pytest.mark.slow
    @pytest.mark.timeout(3600)
    def test_breaks_no_more(self, network, caplog):
        (inputs, labels), smoothing = images_of(100), SmoothingConfig(num_samples=1)
        protocol, model = WorstCaseProtocol(smoothing, eps=EPS, restarts=1), fuse(network)
        target = AttackTarget(smoothing.smooth(network), model, noise_off=True, protocol=protocol)
        attacked = our_worst(target, deterministic_suite(protocol, CLASSES), inputs, labels)
        with noiseless(network), torch.random.fork_rng(), caplog.at_level(logging.DEBUG, "auto-attack"):
            assert_in_the_ball(attacked, inputs)
            standing, right = (network(images).argmax(1) == labels for images in (attacked, inputs))
            theirs = pyautoattack.AutoAttack(model, eps=EPS, version="standard", seed=0)
            assert theirs.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
            steps = [attack.n_iter for attack in (theirs.apgd, theirs.apgd_targeted, theirs.fab)]
            assert (steps, theirs.square.n_queries) == ([100] * 3, 5000)
            left, their_labels = inputs[standing], labels[standing]
            ends, _ = theirs.run_standard_evaluation(left, their_labels)
            assert_in_the_ball(ends, left)
            broken = (network(ends).argmax(1) != their_labels).sum()
            easy, easy_labels = inputs[right & ~standing][:10], labels[right & ~standing][:10]
            theirs_too = (network(theirs.apgd.perturb(easy, easy_labels)).argmax(1) != easy_labels).double().mean()
        print(f"{standing.sum()} of {len(inputs)} stand; of these AutoAttack breaks {broken}")
        assert 0 < standing.sum() < right.sum()
        assert theirs_too > 0.7  # theirs works here: it breaks what ours does
        assert broken == 0


class TestRand:
    """The bundled model with all its noise, M = 64. 32 images, for each takes 4,000 gradients of either side.

    Ours is the part of the worst-case suite that `rand` is made of: Auto-PGD on the cross-entropy and on DLR, 100 steps
    of 20 draws from one start. Both sides' images are evaluated by the same votes, of draws that no attack has seen.
    """

    @pytest.mark.slow
    @pytest.mark.timeout(3600)
    def test_leaves_no_more_accuracy(self, network, caplog, monkeypatch):
        (inputs, labels), config = images_of(32), NoiseConfig.from_header(read_header(locate(MODEL)))
        smoothing = SmoothingConfig(config, num_samples=64)
        protocol = WorstCaseProtocol(
            smoothing, eps=EPS, restarts=1, eot_samples=(DRAWS,), selection_votes=4, resubmissions=(1,)
        )
        noise, fused = config.for_model(network), fuse(network)
        target = AttackTarget(smoothing.smooth(network), fused, noise_off=False, protocol=protocol)
        suite = [entry for entry in expectation_suite(protocol, DRAWS, CLASSES) if entry.name.startswith("apgd")]
        assert [entry.name for entry in suite] == ["apgd-ce", "apgd-dlr"]
        attacked = our_worst(target, suite, inputs, labels)
        assert_in_the_ball(attacked, inputs)

        def votes(images):
            return target.vote(images, labels, 10, seed=mix(1, 2))

        ours, clean = votes(attacked).shares, votes(inputs)
        rows = (ours > 0).nonzero()[:, 0]  # no one can lower the others
        candidates = theirs_of(fused, noise, inputs[rows], labels[rows], caplog, monkeypatch)
        theirs, draws = torch.ones_like(ours), clean.right_draws[rows]
        for ends in candidates:
            assert_in_the_ball(ends, inputs[rows])
            counts = votes(attacked.index_copy(0, rows, ends))
            theirs, draws = theirs.minimum(counts.shares), draws.minimum(counts.right_draws[rows])
        print(f"robust accuracy {ours.mean():.4f} against {theirs.mean():.4f}, clean {clean.shares.mean():.4f}")
        assert draws.sum() < 0.97 * clean.right_draws[rows].sum()  # theirs works here: more draws are wrong
        assert 0 < ours.mean() < clean.shares.mean()
        assert ours.mean() <= theirs.mean() + 1 / 200


def theirs_of(network, noise, inputs, labels, caplog, monkeypatch):
    """What AutoAttack's `rand` makes of the inputs, and each of its attempts.

    It takes one draw's word for a success and gives the clean image where that was right: what an attempt ended with
    is evaluated as well.
    """
    generator, attempts = seeded(5), []
    draw = NoisyClassifier(network, noise, generator=generator)
    theirs = pyautoattack.AutoAttack(draw, eps=EPS, version="rand", seed=0)
    assert theirs.attacks_to_run == ["apgd-ce", "apgd-dlr"]
    assert (theirs.apgd.n_iter, theirs.apgd.eot_iter, theirs.apgd.n_restarts) == (100, DRAWS, 1)
    single_run = theirs.apgd.attack_single_run

    def kept(images, of, **options):
        found = single_run(images, of, **options)
        rows = [next(row for row, one in enumerate(inputs) if torch.equal(one, image)) for image in images]
        attempts.extend(inputs.index_copy(0, torch.tensor(rows), ends) for ends in (found[0], found[3]))
        return found

    monkeypatch.setattr(theirs.apgd, "attack_single_run", kept)
    with noise_from(draw, Fresh(generator)), torch.random.fork_rng(), caplog.at_level(logging.DEBUG, "auto-attack"):
        ends, _ = theirs.run_standard_evaluation(inputs, labels)
    return [ends, *attempts]
