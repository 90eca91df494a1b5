"""A batch under attacks made up for the test, of a classifier whose probabilities are known."""

import math
from dataclasses import replace

import pytest
import torch

import known
from smoothed import Smoothed, Uniform
from smoothed.evaluation.worst_case.batch import AttackTarget, attack_batch
from smoothed.evaluation.worst_case.suite import Cost, SuiteAttack


def target(**settings):
    protocol = known.quick(**settings)
    smoothed = Smoothed(known.Threshold(), Uniform(known.SIGMA), num_samples=protocol.smoothing.num_samples)
    return AttackTarget(smoothed, smoothed.model, noise_off=False, protocol=protocol)


def shifting(name, shift, met=None, **options):
    """An attack that moves the pixel by `shift`, a number or a function of a generator and a shape."""

    def attack(_model, inputs, _labels, generator=None):
        if met is not None:
            met.append(inputs.flatten().tolist())
        moved = shift if isinstance(shift, float) else shift(inputs, generator)
        return (inputs + moved).clamp(0, 1)

    return SuiteAttack(name, attack, Cost(1), 1, **options)


def run(attacked, suite, inputs, seed=0, compute_once=lambda _, compute: compute(), **options):
    inputs = torch.tensor(inputs).view(-1, 1, 1, 1)
    labels = torch.zeros(len(inputs), dtype=torch.int64)
    return attack_batch(attacked, suite, inputs, labels, seed=seed, compute_once=compute_once, **options)


def share(votes):
    return float(votes.shares.mean())


def test_many_attacks_that_do_nothing_leave_the_accuracy_as_it_was():
    """The winner's curse: of ten estimates of 0.5, each from five votes, the lowest is far below 0.5."""
    images = 200
    noise = lambda inputs, generator: 1e-4 * (torch.rand(inputs.shape, generator=generator) - 0.5)  # noqa: E731
    suite = [shifting(str(number), noise) for number in range(10)]
    outcome = run(target(), suite, [0.5] * images)
    lowest = torch.stack([outcome.votes[entry.name].shares for entry in suite]).amin(0)
    assert float(lowest.mean()) < 0.25
    tolerance = 4 * 0.5 / math.sqrt(images * 10)
    for name in ("none", "worst case"):
        assert abs(share(outcome.votes[name]) - 0.5) < tolerance, name
    for entry in suite[:3]:  # nearly all images are still tried
        assert abs(share(outcome.votes[entry.name]) - 0.5) < 4 * 0.5 / math.sqrt(images * 5)


@pytest.mark.slow
def test_the_worst_example_is_kept_and_voted_on_afresh():
    suite = [shifting("weak", -0.1), shifting("strong", -0.3), shifting("harmful", 0.2)]
    outcome = run(target(selection_votes=40), suite, [0.8] * 50)
    expected = {"none": 0.8, "weak": 0.7, "strong": 0.5, "harmful": 1.0, "worst case": 0.5}
    assert list(outcome.votes) == list(expected)
    for name, probability in expected.items():
        trials = 50 * int(outcome.votes[name].count[0])
        assert abs(share(outcome.votes[name]) - probability) < 4 * math.sqrt(0.25 / trials), name
    assert outcome.votes["worst case"].count.tolist() == [10] * 50
    assert outcome.votes["weak"].count.tolist() == [40] * 50


@pytest.mark.slow
def test_the_attack_of_the_worst_example_is_named():
    """Draws decide among equal votes: on certain images a weaker attack never replaces a stronger one."""
    suite = [shifting("weak", -0.1), shifting("strong", -0.4), shifting("harmful", 0.2)]
    outcome = run(target(selection_votes=60), suite, [0.0, 1.0, 1.0, 0.35])
    assert outcome.worst_attack.tolist() == [-1, 1, 1, 1]  # the first was never right, so no attack was tried
    assert outcome.worst.flatten().tolist() == [0.0, pytest.approx(0.6), pytest.approx(0.6), 0.0]
    assert outcome.worst.shape == (4, 1, 1, 1)


def test_among_equal_votes_single_draws_decide():
    """Votes of 21 draws are all right at 0.95 and at 0.85; only the draws tell them apart."""
    outcome = run(target(num_samples=21), [shifting("nearer", -0.1), shifting("no nearer", 0.0)], [0.95] * 10)
    worst = outcome.votes["worst case"]
    assert share(worst) == share(outcome.votes["nearer"]) == 1
    assert float((worst.right_draws / worst.draws).mean()) == pytest.approx(0.85, abs=0.03)


def test_a_broken_image_is_not_attacked_again():
    met = [[], [], []]
    suite = [shifting("first", -0.4, met[0]), shifting("second", -0.1, met[1]), shifting("third", 0.0, met[2])]
    outcome = run(target(), suite, [0.0, 0.4, 1.0, 0.9])
    assert met[0] == [[pytest.approx(0.4), 1.0, pytest.approx(0.9)]]  # that of probability 0 was never right
    assert met[1] == met[2] == [[1.0, pytest.approx(0.9)]]
    assert outcome.attacked == {"none": 4, "first": 3, "second": 2, "third": 2, "worst case": 4}
    worst = outcome.votes["worst case"]
    assert worst.right[:2].tolist() == [0, 0]
    for name in ("second", "third"):  # counted with the examples that broke them
        assert outcome.votes[name].right[:2].tolist() == [0, 0]
        assert outcome.votes[name].count.tolist() == [10, 10, 5, 5]


def test_when_all_are_broken_no_attack_runs():
    met = []
    outcome = run(target(), [shifting("never", 0.0, met)], [0.0, 0.0])
    assert not met
    assert outcome.votes["never"].count.tolist() == [10, 10]


def test_transfer_meets_the_network_without_noise():
    seen = []

    def attack(model, inputs, _labels, generator=None):  # noqa: ARG001 - an attack
        seen.append(torch.equal(model(inputs), model(inputs)))
        return inputs

    suite = [SuiteAttack(source, attack, Cost(1), 1, source) for source in ("draws", "mean")]
    run(target(), suite, [0.7, 0.9])
    assert seen == [False, True]


def test_pixels_without_a_number_are_the_inputs():
    outcome = run(target(), [shifting("broken", float("nan"))], [0.5] * 50)
    assert 0.3 < share(outcome.votes["broken"]) < 0.7


def test_a_network_without_noise_votes_once():
    smoothed = Smoothed(known.Threshold(), num_samples=1)
    noise_off = AttackTarget(smoothed, smoothed.model, noise_off=True, protocol=replace(known.QUICK, alpha=0.05))
    outcome = run(noise_off, [shifting("attack", -0.2)], [0.4, 0.6, 0.9])
    assert outcome.votes["none"].right.tolist() == [0, 10, 10]
    assert outcome.votes["worst case"].right.tolist() == [0, 0, 10]
    assert outcome.votes["attack"].count.tolist() == [10, 5, 5]
    assert not outcome.votes["none"].abstained.any()


def test_all_randomness_is_of_the_seed_and_steps_can_be_found_again():
    noise = lambda inputs, generator: 0.2 * (torch.rand(inputs.shape, generator=generator) - 0.5)  # noqa: E731
    suite, images, kept = [shifting("a", noise), shifting("b", noise)], [0.5] * 30, {}

    def compute_once(name, compute):
        if name not in kept:
            kept[name] = compute()
        return kept[name]

    costs = []
    first = run(target(), suite, images, 0, compute_once)
    again, other = (run(target(), suite, images, seed) for seed in (0, 1))
    found = run(target(), suite, images, 0, compute_once, on_step=costs.append)
    assert list(kept) == ["clean", "a", "b", "final"]
    assert costs == [Cost(10), Cost(6), Cost(6), Cost(10)]
    for name, votes in first.votes.items():
        assert torch.equal(votes.right, again.votes[name].right)
        assert torch.equal(votes.right, found.votes[name].right)
        assert not torch.equal(votes.right, other.votes[name].right)
    shares = [first.votes[name].right for name in ("none", "worst case")]
    assert not torch.equal(*shares)
