"""Votes on saved examples against a literal count of the same draws, and against probabilities that are known."""

import json
from dataclasses import replace

import pytest
import torch

import known
from refusing import check_refusals
from smoothed import Smoothed, inject
from smoothed.data.imageset import ImageSet
from smoothed.errors import CheckpointError
from smoothed.evaluation.resume import fingerprints
from smoothed.evaluation.saved_examples import attack as making
from smoothed.evaluation.saved_examples import evaluate as evaluating
from smoothed.evaluation.saved_examples.attack import attack_dataset, pixel_fingerprint, save_examples
from smoothed.evaluation.saved_examples.evaluate import SavedExamplesProtocol, evaluate_examples
from smoothed.evaluation.saved_examples.load import SavedExamples
from smoothed.injection import PNI
from smoothed.rng.seeds import mix, seeded
from smoothed.smoothing.config import NoiseConfig, SmoothingConfig
from smoothed.smoothing.input_noise import Uniform
from smoothed.utils.intervals import interval

EPS = 0.1
QUICK = SavedExamplesProtocol(SmoothingConfig(known.UNIFORM, num_samples=3), seed=4)


def darker(_model, inputs, _labels, generator=None):  # noqa: ARG001 - an attack
    return (inputs - EPS).clamp(0, 1)


def given(path, model, data, noise):
    """Images that `darker` made of `data`, through a file."""
    made = attack_dataset(Smoothed(model, noise, num_samples=1), data, darker)
    record = {
        **fingerprints(model, data), "pixel_fingerprint": pixel_fingerprint(data), "model": "attacked",
        "attack": "darker", "eps": EPS, "norm": "linf", **known.UNIFORM.to_json(model),
    }  # fmt: skip
    return SavedExamples.load(save_examples(path, made, record), data)


@pytest.fixture
def pixels(tmp_path):
    """The 128 images of one pixel, from 64 to 191, and what is left of them."""
    data = known.pixels(*range(64, 192))
    return given(tmp_path / "made.safetensors", known.Threshold(), data, Uniform(known.SIGMA))


@pytest.mark.slow
def test_accuracies_are_the_known_ones(pixels):
    """A draw on a pixel x is right with probability x, so a vote of three with 3 x^2 - 2 x^3."""
    protocol = replace(QUICK, votes_per_image=40)
    one_draw, vote = evaluate_examples(known.Threshold(), pixels, protocol, name="threshold").rows
    clean = torch.arange(64, 192).double() / 255
    for values, single, voted in (
        (clean, one_draw.clean, vote.clean),
        (clean - EPS, one_draw.robust, vote.robust),
    ):
        assert single == pytest.approx(float(values.mean()), abs=4 * (0.25 / (128 * 120)) ** 0.5)
        assert voted == pytest.approx(float((3 * values**2 - 2 * values**3).mean()), abs=4 * (0.25 / (128 * 40)) ** 0.5)
    assert vote.robust_interval == interval(vote.robust * 128, 128)
    assert one_draw.clean_interval == interval(one_draw.clean * 128, 128)
    assert (one_draw.vote, one_draw.num_samples, one_draw.votes_per_image) == ("prediction", 1, 120)
    assert (vote.vote, vote.num_samples, vote.votes_per_image, vote.images) == ("prediction", 3, 40, 128)


def test_accuracies_are_a_literal_count_of_the_same_draws(network, tmp_path, monkeypatch):
    """Image by image, on a network with noise inside, in two batches."""
    monkeypatch.setattr(evaluating, "BATCH", 20)
    inject(network, weights=PNI(initial=0.5))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 8, 8), generator=generator, dtype=torch.uint8)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)  # of the noise inside
        labels = network(images / 255).argmax(1)
        labels[::3] = (labels[::3] + 1) % 4
    data = ImageSet("random", images, labels, ("a", "b", "c", "d"))
    noise = Uniform(0.2)
    made = given(tmp_path / "made.safetensors", network, data, noise)
    protocol = replace(QUICK, smoothing=SmoothingConfig(NoiseConfig(0.2, law="uniform"), "soft", 3), votes_per_image=2)
    one_draw, vote = evaluate_examples(network, made, protocol, name="n", chunk_size=7).rows
    smoothed = Smoothed(network, noise, vote="soft", num_samples=3)
    for key, versions, single, voted in (
        (10, images / 255, one_draw.clean, vote.clean),
        (11, (images / 255 - EPS).clamp(0, 1), one_draw.robust, vote.robust),
    ):
        right = right_draws = 0
        for number, rows in enumerate((slice(20), slice(20, 24))):
            for again in range(2):
                seed = mix(mix(mix(4, number), key), again)
                classes = smoothed.predict(versions[rows], seeded(seed))
                counts = smoothed.tally(versions[rows], votes=["prediction"], generator=seeded(seed))["prediction"][3]
                for label, found, count in zip(labels[rows], classes, counts.scores, strict=True):
                    right += int(found == label)
                    right_draws += int(count[label])
        # Rounding may decide one nearly equal pair of classes: a trial of the speed chooses the order of sums.
        assert voted == pytest.approx(right / 48, abs=1.01 / 48)
        assert single == pytest.approx(right_draws / 144, abs=1.01 / 144)
    assert 0 < vote.robust < 1
    assert vote.robust != one_draw.robust


def test_no_attack_and_no_vote_of_the_record_had_these_draws(tmp_path, monkeypatch):
    taken = []

    def spy(module, name):
        function = getattr(module, name)

        def spied(*arguments, seed, **options):
            taken.append((module, seed))
            return function(*arguments, seed=seed, **options)

        monkeypatch.setattr(module, name, spied)

    spy(making, "attack_noisy_classifier")
    spy(making, "take_votes")
    spy(evaluating, "take_and_record_votes")
    made = given(tmp_path / "made.safetensors", known.Threshold(), known.pixels(*[150] * 300), Uniform(known.SIGMA))
    evaluate_examples(known.Threshold(), made, replace(QUICK, seed=0), name="threshold")
    before, after = ({seed for module, seed in taken if module is one} for one in (making, evaluating))
    assert (len(before), len(after)) == (6, 4)
    assert not before & after


def test_it_says_whose_images_they_are(pixels, network):
    del network
    row = evaluate_examples(known.Threshold(), pixels, QUICK, name="threshold").rows[1]
    assert (row.same_classifier, row.attacked_model, row.attacked_sigma) == (True, "attacked", known.SIGMA)
    assert (row.model, row.attack, row.eps, row.norm, row.seed) == ("threshold", "darker", EPS, "linf", 4)
    for noise in (NoiseConfig(0.1, law="uniform"), NoiseConfig(known.SIGMA)):
        quieter = replace(QUICK, smoothing=replace(QUICK.smoothing, noise=noise))
        assert not evaluate_examples(known.Threshold(), pixels, quieter, name="threshold").rows[1].same_classifier
    other = known.Threshold()
    other.register_buffer("more", torch.ones(1))
    assert not evaluate_examples(other, pixels, QUICK, name="other").rows[1].same_classifier
    assert json.loads(json.dumps(row.to_json()))["robust_interval"] == list(row.robust_interval)


def test_an_interrupted_evaluation_goes_on(pixels, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "BATCH", 50)

    def interrupt(done, total):
        assert total == 3
        if done == 2:
            raise KeyboardInterrupt

    options = {"name": "threshold", "out": tmp_path / "kept", "keep_images": 60}
    with pytest.raises(KeyboardInterrupt):
        evaluate_examples(known.Threshold(), pixels, QUICK, on_progress=interrupt, **options)
    taken, take = [], evaluating.take_and_record_votes
    monkeypatch.setattr(
        evaluating, "take_and_record_votes", lambda *args, **kw: taken.append(len(args[1])) or take(*args, **kw)
    )
    found = evaluate_examples(known.Threshold(), pixels, QUICK, **options)
    assert taken == [28, 28]
    whole = evaluate_examples(known.Threshold(), pixels, QUICK, name="threshold", keep_images=60)
    assert found.rows == whole.rows
    for name, record in whole.records.items():
        assert all(torch.equal(tensor, found.records[name][key]) for key, tensor in record.items())
        assert record["shares"].shape == (3, 60, 2)  # M = 1, 2, 3
    other = replace(QUICK, smoothing=replace(QUICK.smoothing, num_samples=5))
    with pytest.raises(CheckpointError, match=r"out: expected an evaluation with smoothing = .*'num_samples': 5"):
        evaluate_examples(known.Threshold(), pixels, other, **options)


def test_bad_protocols():
    def call(**options):
        votes = {"votes_per_image": options.pop("votes_per_image", 1)}
        SavedExamplesProtocol(SmoothingConfig(NoiseConfig(0.1), **options), **votes)

    check_refusals(
        call,
        [
            ({"vote": "hard"}, "vote: expected one of prediction, weighted, soft, got 'hard'"),
            ({"num_samples": 0}, "num_samples: expected an integer of at least 1, got 0"),
            ({"votes_per_image": 0}, "votes_per_image: expected an integer of at least 1, got 0"),
        ],
    )
