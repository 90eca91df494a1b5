"""Outcomes of several batches and runs: their places, direct tallies with the same seeds, and known probabilities."""

import pytest
import torch

import known
from smoothed.attacks import pgd
from smoothed.evaluation import correctness
from smoothed.evaluation.correctness import BATCH, Setting, attack_noisy_classifier, measure_outcomes
from smoothed.evaluation.resume import ResumeFolder
from smoothed.evaluation.streams import BatchStream
from smoothed.rng.seeds import mix, seed_from, seeded
from smoothed.smoothing.classifier import Smoothed
from smoothed.smoothing.input_noise import Gaussian, Uniform


def attack(model, inputs, labels, generator):
    return pgd(model, inputs, labels, eps=0.11, steps=8, generator=generator)


def test_batches_and_runs_are_in_their_places():
    values = torch.arange(2 * BATCH + 1) % 256
    data, seen = known.pixels(*values.tolist()), []
    settings = [Setting(Gaussian(sigma), {"mine": "soft"}, (1, 3)) for sigma in (0.0, 0.3)]
    measured = measure_outcomes(
        known.Threshold(),
        data,
        settings,
        attack,
        runs=2,
        seed=7,
        precision="float32",
        resume=ResumeFolder(None, {}),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert all(outcomes.right.shape == (2, 1, 2, 2, 2 * BATCH + 1) for outcomes in measured)
    noiseless, noisy = (outcomes.right for outcomes in measured)
    assert seen == [(done, 12) for done in range(1, 13)]
    for count in range(2):
        for run in range(2):
            assert torch.equal(noiseless[0, 0, count, run], values / 255 > 0.5)
            assert torch.equal(noiseless[1, 0, count, run], values / 255 - 0.11 > 0.5)
    assert not torch.equal(noisy[0, 0, 0, 0], noisy[0, 0, 0, 1])  # each run draws anew
    # One batch of one run on its own, the last one.
    key = mix(7, 1, 2)
    ((inputs, labels),) = data.subset(slice(2 * BATCH, None)).batches(BATCH)
    seed = mix(key, BatchStream.ATTACK)
    attacked = attack_noisy_classifier(known.Threshold(), Gaussian(0.3), attack, inputs, labels, seed=seed)
    alone = Smoothed(known.Threshold(), Gaussian(0.3), vote="soft", num_samples=3)
    right = alone.predict(attacked, seeded(mix(key, BatchStream.ATTACKED_VOTES))) == labels
    assert torch.equal(noisy[1, 0, 1, 1, 2 * BATCH :], right)


VALUES = torch.linspace(26, 229, 30).round().int().tolist()
X = torch.tensor(VALUES) / 255
EPS = 0.11
NOISE = Uniform(known.SIGMA)
VOTES, COUNTS = {"prediction": "prediction", "mine": lambda logits: logits.softmax(1)}, (3, 100)


def outcomes(keep_images=0, runs=2, resume=None, attacked=True, counts=COUNTS, **options):
    """Those of 30 pixels, in batches of 20 if the test says so."""
    (found,) = measure_outcomes(
        known.Threshold(), known.pixels(*VALUES), [Setting(NOISE, VOTES, counts)], attack if attacked else None,
        runs=runs, seed=5, precision="float32", resume=resume or ResumeFolder(None, {}), keep_images=keep_images,
        **options,
    )  # fmt: skip
    return found


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(correctness, "BATCH", 20)


def batches_of(run):
    """The rows of each batch, its key, and the images of each kind with the stream of their votes."""
    for number, rows in enumerate((slice(20), slice(20, 30))):
        inputs, labels = X[rows].view(-1, 1, 1, 1), torch.zeros(len(X[rows]), dtype=torch.int64)
        key = mix(5, run, number)
        seed = mix(key, BatchStream.ATTACK)
        adversarial = attack_noisy_classifier(known.Threshold(), NOISE, attack, inputs, labels, seed=seed)
        yield rows, key, [(BatchStream.CLEAN_VOTES, inputs), (BatchStream.ATTACKED_VOTES, adversarial)]


@pytest.mark.slow
@pytest.mark.parametrize("keep_images", [0, 25])
@pytest.mark.usefixtures("small_batches")
def test_outcomes_are_those_of_a_direct_tally_with_the_same_seeds(keep_images):
    """Of 25 kept images 5 lie in the second batch. Their votes take all draws, in the first run."""
    found = outcomes(keep_images)
    assert found.right.shape == found.margin.shape == found.draws.shape == (2, 2, 2, 2, 30)
    assert found.shares.shape == (2, 2, 2, keep_images, 2)
    for run in range(2):
        for rows, key, streams in batches_of(run):
            for kind, (stream, images) in enumerate(streams):
                smoothed = Smoothed(known.Threshold(), NOISE)
                stopped, whole = (
                    smoothed.tally(images, COUNTS, stop=stop, votes=VOTES, generator=seeded(mix(key, stream)))
                    for stop in ("exact", None)
                )
                for i, vote in enumerate(VOTES):
                    for j, count in enumerate(COUNTS):
                        place = (kind, i, j, run, rows)
                        kept = len(range(keep_images)[rows]) if run == 0 else 0
                        scores = torch.cat([whole[vote][count].scores[:kept], stopped[vote][count].scores[kept:]])
                        share = scores[:, 0] / scores.sum(1)
                        assert torch.equal(found.right[place], share >= 0.5)  # a tie goes to class 0
                        torch.testing.assert_close(found.margin[place], 2 * share - 1, atol=1e-6, rtol=0)
                        assert torch.equal(found.draws[place], stopped[vote][count].num_samples.int())
                        if kept:
                            of_kept = found.shares[kind, i, j, rows]
                            torch.testing.assert_close(of_kept[:, 0], share[: len(of_kept)], atol=1e-6, rtol=0)
    assert (found.draws < torch.tensor(COUNTS)[:, None, None]).any()


@pytest.mark.usefixtures("small_batches")
def test_draws_are_those_after_which_the_rest_cannot_change_the_class():
    """Counted in the classes of the single draws, for kept images and for the others."""
    counts = (1, 6, 41)
    found = outcomes(25, runs=1, counts=counts)
    for rows, key, streams in batches_of(0):
        for kind, (stream, images) in enumerate(streams):
            sampler = Smoothed(known.Threshold(), NOISE).sampler(images, 41, seed=seed_from(seeded(mix(key, stream))))
            votes = sampler.logits(images, torch.arange(len(images)), 0, 41).argmax(2).T.tolist()
            for j, total in enumerate(counts):
                expected = [stop_of(of_image, total) for of_image in votes]
                assert found.draws[kind, 0, j, 0, rows].tolist() == expected
                assert found.draws[kind, 1, j, 0, rows].tolist() == [total] * len(expected)  # it has no bound
    assert len(set(found.draws[0, 0, 2, 0, :25].tolist())) > 5
    assert found.draws[0, 0, 2, 0, 25:].min() < 41


def stop_of(votes, total):
    """The first number of draws after which class 0 or class 1 wins whatever the other draws say; class 0 wins ties."""
    for drawn in range(1, total + 1):
        most = [votes[:drawn].count(each) + total - drawn for each in (0, 1)]
        if most[1] <= total - most[1] or most[0] < total - most[0]:
            return drawn
    raise AssertionError("the last draw decides")


@pytest.mark.usefixtures("small_batches")
def test_shares_are_the_known_probabilities_and_examples_lie_on_the_sphere():
    """A draw on a pixel x is right with probability x, and with x - eps after the attack."""
    found = outcomes(keep_images=25, runs=1)
    assert torch.equal(found.images.flatten(), X[:25])
    torch.testing.assert_close(found.adversarial, (found.images - EPS).clamp(min=0), atol=1e-6, rtol=0)
    for kind, expected in enumerate((X[:25], (X[:25] - EPS).clamp(min=0))):
        shares = found.shares[kind, 0, -1]
        torch.testing.assert_close(shares.sum(1), torch.ones(25))
        assert (shares[:, 0] - expected).abs().max() < 5 * (0.25 / 100) ** 0.5
        assert abs(float((shares[:, 0] - expected).mean())) < 5 * (0.25 / 100 / 25) ** 0.5
        margin = found.margin[kind, 0, -1, 0, :25]
        torch.testing.assert_close(margin, 2 * shares[:, 0] - 1, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("small_batches")
def test_kept_images_change_no_outcome():
    few, many = outcomes(keep_images=3), outcomes()
    assert torch.equal(few.right, many.right)
    assert torch.equal(few.draws, many.draws)
    assert torch.equal(few.margin[..., 3:], many.margin[..., 3:])
    assert torch.equal(few.margin[..., 1, :], many.margin[..., 1, :])  # nothing is kept of the second run
    assert not torch.equal(few.margin, many.margin)


@pytest.mark.usefixtures("small_batches")
def test_without_an_attack_there_is_one_kind_of_images():
    found, attacked = outcomes(keep_images=4, attacked=False), outcomes(keep_images=4)
    assert found.right.shape == (1, 2, 2, 2, 30)
    assert torch.equal(found.right, attacked.right[:1])
    assert torch.equal(found.shares, attacked.shares[:1])
    assert torch.equal(found.adversarial, found.images)


@pytest.mark.usefixtures("small_batches")
def test_resumed_outcomes_are_those_of_an_uninterrupted_run(tmp_path):
    def interrupt(done, total):
        assert total == 4
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outcomes(7, resume=ResumeFolder(tmp_path, {}), on_progress=interrupt)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    resumed, whole = outcomes(7, resume=ResumeFolder(tmp_path, {})), outcomes(7)
    for name, tensor in vars(whole).items():
        assert torch.equal(getattr(resumed, name), tensor), name
    assert len(before) == 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
