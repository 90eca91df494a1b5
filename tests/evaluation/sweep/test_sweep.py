"""The sweep against separate runs of `Smoothed`, against `evaluate`, and against the count of its passes."""

import json
from functools import partial

import pytest
import torch
from torch import nn

import known
from smoothed import CNI, Gaussian, Smoothed, inject
from smoothed.acceleration.fast import Fast
from smoothed.data.imageset import ImageSet
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.evaluation.correctness import attack_noisy_classifier
from smoothed.evaluation.paper_protocol.evaluate import PaperProtocol, evaluate_paper_protocol
from smoothed.evaluation.streams import BatchStream
from smoothed.evaluation.sweep.sweep import sweep
from smoothed.rng.seeds import mix, seeded
from smoothed.smoothing.config import NoiseConfig

SIGMAS = (0.0, 0.2)
COUNTS = (1, 3)


def noises(*sigmas):
    return [NoiseConfig(sigma) for sigma in sigmas]


@pytest.fixture
def data(generator):
    """Eight random images with random labels."""
    images = torch.randint(0, 256, (8, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return ImageSet("random", images, torch.randint(4, (8,), generator=generator), ("a", "b", "c", "d"))


@pytest.fixture
def noisy(network):
    inject(network, weights=CNI())
    return network


def protocol(**options):
    return PaperProtocol(**{"steps": 2, "num_samples": COUNTS, "seed": 5, **options})


@pytest.mark.slow
def test_each_cell_is_a_separate_run_of_the_vote_at_that_sigma_and_m(noisy, data):
    settings = protocol(runs=2)
    found = sweep(noisy, data, settings, noises=noises(*SIGMAS), name="n")
    assert found.right.shape == (2, 2, 3, 2, 2, 8)
    ((inputs, labels),) = data.batches(8)
    attack, fast = settings.build_attack(), Fast(noisy)  # as it attacks: rounding may decide the sign of a gradient
    for run in range(2):
        key = mix(5, run, 0)
        for i, sigma in enumerate(SIGMAS):
            noise = Gaussian(sigma)
            attacked = attack_noisy_classifier(fast, noise, attack, inputs, labels, seed=mix(key, BatchStream.ATTACK))
            streams = [(BatchStream.CLEAN_VOTES, inputs), (BatchStream.ATTACKED_VOTES, attacked)]
            for kind, (stream, images) in enumerate(streams):
                for j, vote in enumerate(found.votes):
                    for k, count in enumerate(COUNTS):
                        alone = Smoothed(noisy, noise, vote=vote, num_samples=count, stop=None)
                        predicted = alone.predict(images, seeded(mix(key, stream)))
                        assert torch.equal(found.right[kind, i, j, k, run], predicted == labels)


def test_rows_are_those_of_evaluate(noisy, data):
    settings = protocol(runs=2)
    found = sweep(noisy, data, settings, noises=noises(*SIGMAS), name="n")
    options = {"noises": noises(*SIGMAS), "name": "n", "base": False}
    rows = evaluate_paper_protocol(noisy, data, settings, **options).rows

    def by_place(rows):
        return {(row["sigma"], row["vote"], row["num_samples"]): row for row in rows}

    assert by_place(map(found.row, found.cells())) == by_place(row.to_json() for row in rows)


def test_without_an_attack_the_clean_cells_stay_and_the_rest_is_none(noisy, data):
    attacked = sweep(noisy, data, protocol(), noises=noises(*SIGMAS), name="n")
    clean = sweep(noisy, data, protocol(attack="none"), noises=noises(*SIGMAS), name="n")
    assert torch.equal(clean.right[0], attacked.right[0])
    assert len(clean.right) == 1
    for ours, theirs in zip(clean.cells(), attacked.cells(), strict=True):
        assert ours.clean == theirs.clean == ours.criterion
        row = clean.row(ours)
        assert row.keys() == attacked.row(theirs).keys()
        assert (row["attack"], row["robust"], row["eps"]) == ("none", None, None)


def test_an_image_is_lost_where_the_attack_reaches_it():
    values = torch.arange(100, 250)
    data = known.pixels(*values.tolist())
    found = sweep(
        known.Threshold(),
        data,
        protocol(eps=0.2, steps=7, votes=("soft",), num_samples=(1,)),
        noises=noises(0.0),
        name="t",
    )
    assert torch.equal(found.right[:, 0, 0, 0, 0], torch.stack([values / 255 > 0.5, values / 255 - 0.2 > 0.5]))


class Counting(nn.Module):
    """Class 1 where the first pixel is bright; counts the images it sees. The class is uncertain under noise."""

    rows = 0

    def forward(self, inputs):
        self.rows += len(inputs)
        return torch.stack([inputs[:, 0, 0, 0], 1 - inputs[:, 0, 0, 0]], 1)


@pytest.mark.slow
def test_a_sigma_costs_the_draws_of_the_largest_m_whatever_the_votes_and_ms(data):
    model = Counting()
    data.labels.remainder_(2)  # its classes
    counts = tuple(2**power for power in range(6))
    sweep(model, data, protocol(attack="none", num_samples=counts), noises=noises(0.2, 0.3), name="c")
    assert 2 * 8 * 32 / 2 < model.rows <= 2 * 8 * 32  # less than all where votes are settled before
    of_votes, model.rows = model.rows, 0
    sweep(model, data, protocol(attack="fgsm", num_samples=counts), noises=noises(0.2, 0.3), name="c")
    assert of_votes + 2 * 8 < model.rows <= 2 * (of_votes + 8) + 2 * 8 * 32


def test_sigmas_share_their_noise():
    """A threshold on one pixel under noise of either sign: who is right at one sigma is right at all smaller ones."""
    pixels = torch.full((200, 1, 1, 1), 140, dtype=torch.uint8)
    data = ImageSet("one", pixels, torch.zeros(200, dtype=torch.int64), ("bright", "dark"))
    sigmas = (0.01, 0.05, 0.1, 0.2, 0.5)
    found = sweep(Counting(), data, protocol(attack="none", num_samples=(1,)), noises=noises(*sigmas), name="c")
    right = found.criterion[:, 0, 0, 0].long()
    assert bool((right.diff(dim=0) <= 0).all())
    assert 100 < int(right[-1].sum()) < int(right[0].sum())


def test_order_does_not_matter_and_values_come_once(noisy, data):
    ascending, shuffled = (
        sweep(noisy, data, protocol(num_samples=counts, attack="none"), noises=noises(*sigmas), name="n")
        for sigmas, counts in (((0.0, 0.1), (1, 3)), ((0.1, 0.0), (3, 1)))
    )
    assert shuffled.sigmas == (0.0, 0.1)
    assert torch.equal(ascending.right, shuffled.right)
    for sigmas in ([0.1, 0.1], []):
        with pytest.raises(ArgumentError, match="sigma: expected at least one value and no repeated ones"):
            sweep(noisy, data, protocol(), noises=noises(*sigmas), name="n")
    laws = [NoiseConfig(0.1), NoiseConfig(0.2, law="laplace")]
    with pytest.raises(ArgumentError, match=r"noise: expected one distribution .*, got gaussian, laplace"):
        sweep(noisy, data, protocol(), noises=laws, name="n")
    with pytest.raises(ArgumentError, match="attack: expected one of"):
        sweep(noisy, data, protocol(attack="magic"), noises=noises(0.1), name="n")


def test_a_folder_is_gone_on_from(network, data, tmp_path):
    whole = sweep(network, data, protocol(runs=2), noises=noises(*SIGMAS), name="n")

    def stop_half_way(done, total):
        assert total == 4
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(
            network, data, protocol(runs=2), noises=noises(*SIGMAS), name="n", out=tmp_path, on_progress=stop_half_way
        )
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = sweep(network, data, protocol(runs=2), noises=noises(*SIGMAS), name="n", out=tmp_path)
    assert torch.equal(whole.right, again.right)
    assert len(before) == 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    configuration = json.loads((tmp_path / "configuration.json").read_text())
    assert [noise["sigma"] for noise in configuration["noises"]] == list(SIGMAS)
    with pytest.raises(CheckpointError, match="out: expected an evaluation with noises"):
        sweep(network, data, protocol(runs=2), noises=noises(0.0, 0.1), name="n", out=tmp_path)


def test_kept_images_change_no_outcome_and_are_those_of_each_attack(tmp_path):
    """Their votes may stop early as all others do; the attacked ones are those that `measure_outcomes` voted on."""
    data = known.pixels(*range(60, 220, 4))
    run = partial(sweep, known.Threshold(), data, protocol(steps=2), noises=noises(*SIGMAS), name="k")
    plain, kept = run(), run(keep_images=7, out=tmp_path)
    assert torch.equal(plain.right, kept.right)
    assert plain.kept_images is plain.adversarial is None
    x = torch.arange(60, 220, 4).view(-1, 1, 1, 1)[:7] / 255
    torch.testing.assert_close(kept.kept_images, x)
    assert kept.adversarial.shape == (len(SIGMAS), 7, 1, 1, 1)
    moved = x - kept.adversarial
    assert 0 < float(moved.max()) <= 8 / 255 + 1e-6
    again = run(keep_images=7, out=tmp_path)
    assert torch.equal(again.adversarial, kept.adversarial)
    assert run(keep_images=50).kept_images.shape[0] == 40
    with pytest.raises(CheckpointError, match="out: expected an evaluation with keep_images = 3, got one with 7"):
        run(keep_images=3, out=tmp_path)
