"""The worst-case evaluation on a classifier whose every number is known."""

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch

import known
from refusing import check_refusals
from smoothed import CNI, Smoothed, Uniform, inject
from smoothed.errors import CheckpointError
from smoothed.evaluation.worst_case.evaluate import evaluate_worst_case
from smoothed.evaluation.worst_case.protocol import WorstCaseProtocol
from smoothed.rng.seeds import mix, seeded
from smoothed.smoothing.config import NoiseConfig, SmoothingConfig

VALUES = [round(255 * x) for x in torch.linspace(0.25, 1, 40).tolist()]
X = torch.tensor(VALUES, dtype=torch.float64) / 255
EPS = known.QUICK.eps


@pytest.fixture(scope="module")
def result():
    """The rows of three repetitions of 40 images, which are a batch and a part of one, in two runs."""
    protocol = replace(known.QUICK, steps=9, queries=20, selection_votes=5, runs=2, resubmissions=(1, 2, 20))
    return evaluate_worst_case(
        known.Threshold(), known.pixels(*VALUES * 3), protocol, name="threshold", keep_images=110
    )


def near(measured, expected, trials=120 * 20):
    return abs(measured - float(expected)) < 4 * math.sqrt(0.25 / trials)


def row(result, network, attack):
    (found,) = (row for row in result.rows if (row.network, row.attack) == (network, attack))
    return found


@pytest.mark.slow
def test_clean_and_worst_case_are_the_known_probabilities(result):
    clean, worst = row(result, "smoothed", "none"), row(result, "smoothed", "worst case")
    assert near(clean.robust.mean, X.mean())
    assert near(worst.robust.mean, (X - EPS).mean())
    assert worst.clean == clean.clean == clean.robust
    for times in (1, 2, 20):
        assert near(clean.worst[times].mean, (X**times).mean())
        assert near(worst.worst[times].mean, ((X - EPS) ** times).mean())
        assert worst.one_draw[times] == worst.worst[times]  # M = 1
    assert 0 < worst.robust.std < 0.02
    low, high = worst.robust.interval
    assert low < float((X - EPS).mean()) < high
    assert (worst.images, worst.votes, worst.runs, worst.attacked) == (120, 20, 2, 120)


@pytest.mark.slow
def test_each_attack_has_its_row(result):
    names = [row.attack for row in result.rows if row.network == "smoothed"]
    assert names == [
        *("none", "pgd-ce", "pgd-margin", "pgd-vote", "apgd-ce", "targeted", "transfer", "square", "worst case")
    ]
    for name in names[1:-1]:
        found = row(result, "smoothed", name)
        assert near(found.robust.mean, (X - EPS).mean(), 120 * 5), name
        assert set(found.worst) == {1, 2}  # five votes say nothing of twenty
        assert found.attacked <= 120
    assert row(result, "smoothed", "transfer").eot_samples == 1
    assert row(result, "smoothed", "square").eot_samples in {1, 2}


@pytest.mark.slow
def test_the_network_without_noise_is_in_the_same_table(result):
    clean, worst = row(result, "mean network", "none"), row(result, "mean network", "worst case")
    assert result.rows[0] == clean
    assert clean.robust.mean == float((X > 0.5).double().mean())
    assert worst.robust.mean == float((X - EPS > 0.5).double().mean())
    assert {accuracy.mean for accuracy in worst.worst.values()} == {worst.robust.mean}
    assert (worst.num_samples, worst.sigma, worst.tied, worst.robust.std) == (1, 0.0, 0.0, 0.0)
    assert not any(row.attack == "transfer" for row in result.rows if row.network == "mean network")


@pytest.mark.slow
def test_the_sweep_is_reported_and_taken(result):
    assert [row.eot_samples for row in result.sweep] == [1, 2]
    assert result.sweep[-1].flat
    chosen = next(row.eot_samples for row in result.sweep if row.chosen)
    assert row(result, "smoothed", "pgd-ce").eot_samples == chosen
    assert all(row.images == 40 for row in result.sweep)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "prefix"), [("mean network", "mean"), ("smoothed", "smoothed")])
def test_tensors_are_those_of_the_rows(result, network, prefix):
    """Two batches, of 100 and 20 images; the kept images end within the second."""
    rows = [row for row in result.rows if row.network == network]
    right, worst_attack = result.tensors[f"{prefix}.right"], result.tensors[f"{prefix}.worst_attack"]
    assert right.shape == (len(rows), 2, 120)
    for row, of_row in zip(rows, right, strict=True):
        assert row.robust.mean == pytest.approx(of_row.double().mean().item(), abs=1e-6)
        assert torch.equal((of_row * 20).round() / 20, of_row)  # shares of 20 votes, or of 5
    assert worst_attack.shape == (2, 120)
    assert worst_attack.dtype == torch.int64
    assert -1 <= worst_attack.min() <= worst_attack.max() < len(rows) - 2
    assert (worst_attack[right[0] == 0] == -1).all()  # nobody attacks what is never right
    x = torch.tensor(VALUES * 3) / 255
    adversarial = result.tensors[f"{prefix}.adversarial"]
    assert adversarial.shape == (110, 1, 1, 1)
    moved = adversarial.flatten() - x[:110]
    assert moved.abs().max() <= EPS + 1e-6
    assert torch.equal(moved == 0, worst_attack[0, :110] == -1)
    if network == "mean network":  # all votes of an image are equal; what is within reach is broken by some attack
        assert torch.equal(right[0], (x > 0.5).float().expand(2, -1))
        assert torch.equal(right[-1], (x - EPS > 0.5).float().expand(2, -1))
        assert torch.equal(worst_attack >= 0, right[0] != right[-1])
    else:
        assert abs(float((right[-1, 0, :110] - adversarial.flatten()).mean())) < 5 * math.sqrt(0.25 / 110 / 20)


def test_no_images_are_kept_unless_asked_for():
    protocol = replace(known.QUICK, eot_samples=(1,), steps=1, queries=2)
    result = evaluate_worst_case(known.Threshold(), known.pixels(200, 60), protocol, name="t")
    assert set(result.tensors) == {
        f"{prefix}.{name}" for prefix in ("mean", "smoothed") for name in ("right", "worst_attack")
    }


@pytest.mark.parametrize("vote", ["prediction", "soft"])
def test_the_record_of_a_vote_is_that_of_a_tally_with_the_same_seed(vote):
    """120 images, of which 110 are kept: the final votes on them are votes 0 to 9 of their stream in each batch."""
    protocol = known.quick(vote=vote, num_samples=5, eot_samples=(1,), steps=1, queries=2, runs=2, seed=3)
    data = known.pixels(*VALUES * 3)
    run = partial(evaluate_worst_case, known.Threshold(), data, protocol, name="t")
    found, without = run(keep_images=110), run()
    assert found.to_json() == without.to_json()
    assert not [name for name in without.tensors if "shares" in name or "decided_after" in name]
    x, smoothed = torch.tensor(VALUES * 3).view(-1, 1, 1, 1) / 255, Smoothed(known.Threshold(), Uniform(known.SIGMA))
    worst = found.tensors["smoothed.adversarial"]
    for name, images, stream in (("clean", x[:110], 2), ("worst", worst, 3)):
        for batch, rows in enumerate((slice(100), slice(100, 110))):
            seed = mix(mix(mix(3, 3, 0, batch), stream), 0)  # SMOOTHED, the first run; then the first vote
            tallies = smoothed.tally(images[rows], (1, 2, 4, 5), votes=(vote,), generator=seeded(seed))[vote]
            stopped = smoothed.tally(images[rows], (1, 2, 4, 5), votes=(vote,), stop="exact", generator=seeded(seed))
            for place, (count, tally) in enumerate(tallies.items()):
                shares, stops = (found.tensors[f"smoothed.{name}.{key}"][place] for key in ("shares", "decided_after"))
                torch.testing.assert_close(shares[rows], tally.shares)
                assert torch.equal(stops[rows].long(), stopped[vote][count].num_samples)
    for name, images in (("clean", x[:110]), ("worst", found.tensors["mean.adversarial"])):
        bright = (images.flatten() > 0.5).float()
        assert torch.equal(found.tensors[f"mean.{name}.shares"], torch.stack([bright, 1 - bright], 1))


@pytest.mark.slow
def test_resumed_tensors_are_those_of_an_uninterrupted_evaluation(tmp_path):
    protocol = replace(known.QUICK, eot_samples=(1,), steps=2, queries=4)
    data, steps = known.pixels(*VALUES), []

    def interrupt(*_):
        steps.append(1)
        if len(steps) == 12:
            raise KeyboardInterrupt

    options = {"name": "t", "keep_images": 9}
    with pytest.raises(KeyboardInterrupt):
        evaluate_worst_case(known.Threshold(), data, protocol, **options, out=tmp_path, on_progress=interrupt)
    stored = len(list(tmp_path.glob("*.safetensors")))
    resumed, whole = (
        evaluate_worst_case(known.Threshold(), data, protocol, **options, out=out) for out in (tmp_path, None)
    )
    assert 0 < stored < len(list(tmp_path.glob("*.safetensors")))
    assert resumed.to_json() == whole.to_json()
    assert resumed.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())


def test_more_draws_a_vote_and_abstentions():
    protocol = known.quick(num_samples=10, alpha=0.05, eot_samples=(1,), eps=0.0, queries=2, steps=1)
    result = evaluate_worst_case(known.Threshold(), known.pixels(*[204] * 40), protocol, name="threshold")
    clean, mean = row(result, "smoothed", "none"), row(result, "mean network", "none")
    assert not result.sweep
    assert near(clean.robust.mean, 0.8**10 + 10 * 0.8**9 * 0.2, 400)
    assert near(clean.abstained, 1 - clean.robust.mean, 400)
    assert near(clean.one_draw[1].mean, 0.8, 4000)
    assert (clean.alpha, mean.alpha, mean.abstained) == (0.05, None, 0)


def test_a_network_without_noise_is_attacked_once():
    protocol = known.quick(NoiseConfig(0.0))
    result = evaluate_worst_case(known.Threshold(), known.pixels(*VALUES), protocol, name="threshold")
    assert {row.network for row in result.rows} == {"mean network"}
    assert not result.sweep


@pytest.mark.slow
def test_same_seed_same_rows_whatever_the_chunk_and_the_network_is_left_as_it_was(network):
    inject(network, weights=CNI())
    network.train()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 8, 8), generator=generator, dtype=torch.uint8)
    data = replace(known.pixels(0), images=images, labels=torch.arange(6) % 4, classes=tuple("abcd"))
    protocol = WorstCaseProtocol(
        SmoothingConfig(NoiseConfig(0.1), num_samples=3), steps=2, restarts=1, eot_samples=(1, 2), queries=3,
        selection_votes=2, resubmissions=(1, 3), eps=0.02,
    )  # fmt: skip
    seen = []
    first, again = (
        evaluate_worst_case(network, data, protocol, name="n", chunk_size=size, on_progress=lambda *of: seen.append(of))
        for size in (250, 4)
    )
    assert first.to_json() == again.to_json()
    assert first.tensors.keys() == again.tensors.keys()
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in first.tensors.items())
    assert first.to_json() != evaluate_worst_case(network, data, replace(protocol, seed=1), name="n").to_json()
    assert network.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert seen[-1][0] == seen[-1][1]
    assert all(before[0] <= after[0] for before, after in pairwise(seen[: len(seen) // 2]))


def test_another_configuration_in_the_folder_is_refused(tmp_path):
    protocol = replace(known.QUICK, eot_samples=(1,), steps=1, queries=2)
    evaluate_worst_case(known.Threshold(), known.pixels(200), protocol, name="t", out=tmp_path)
    with pytest.raises(CheckpointError, match=r"out: expected an evaluation with eps = 0.1, got one with 0.2"):
        evaluate_worst_case(known.Threshold(), known.pixels(200), replace(protocol, eps=0.1), name="t", out=tmp_path)
    with pytest.raises(CheckpointError, match="out: expected an evaluation with images = 2, got one with 1"):
        evaluate_worst_case(known.Threshold(), known.pixels(200, 200), protocol, name="t", out=tmp_path)


def test_bad_settings():
    def call(**options):
        known.quick(**options)

    check_refusals(
        call,
        [
            ({"eot_samples": (4, 1)}, "eot_samples: expected ascending numbers without repeated ones, got 4,1"),
            ({"eot_samples": (0, 1)}, "eot_samples: expected an integer of at least 1, got 0"),
            ({"resubmissions": ()}, "resubmissions: expected ascending numbers"),
            ({"steps": 0}, "steps: expected an integer of at least 1"),
            ({"queries": 1}, "queries: expected at least 2"),
            ({"vote": "hard"}, "vote: expected one of prediction, weighted, soft"),
            ({"alpha": 0.7}, "alpha: expected a number in"),
            (
                {"alpha": 0.01, "vote": "soft"},
                "alpha: expected the prediction vote, .*, got .*the soft",
            ),
        ],
    )
