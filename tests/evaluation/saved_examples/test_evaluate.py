"""Judged images against a literal count of the same draws, and against probabilities that are known."""

import json
from dataclasses import replace

import pytest
import torch

import known
from refusing import check_refusals
from smoothed import Smoothed, inject
from smoothed.data.imageset import ImageSet
from smoothed.errors import CheckpointError
from smoothed.evaluation import adversarial, judging
from smoothed.evaluation.resume import circumstances
from smoothed.evaluation.saved_examples.attack import attack_images, levels, save_adversarial
from smoothed.evaluation.saved_examples.evaluate import JudgingProtocol, judge
from smoothed.evaluation.saved_examples.load import Given
from smoothed.injection import PNI
from smoothed.rng.seeds import mix, seeded
from smoothed.smoothing.input_noise import Uniform
from smoothed.utils.intervals import interval

EPS = 0.1
QUICK = JudgingProtocol(sigma=known.SIGMA, sigma_units="pixel", noise="uniform", num_samples=3, seed=4)


def darker(_model, inputs, _labels, generator=None):  # noqa: ARG001 - an attack
    return (inputs - EPS).clamp(0, 1)


def given(path, model, data, noise):
    """Images that `darker` made of `data`, through a file."""
    made = attack_images(Smoothed(model, noise, num_samples=1), data, darker)
    record = {
        **circumstances(model, data), "levels": levels(data), "model": "attacked", "attack": "darker", "eps": EPS,
        "norm": "linf", "noise": "uniform", "sigma": known.SIGMA, "sigma_units": "pixel",
    }  # fmt: skip
    return Given.load(save_adversarial(path, made, record), data)


@pytest.fixture
def pixels(tmp_path):
    """The 128 images of one pixel, from 64 to 191, and what is left of them."""
    data = known.pixels(*range(64, 192))
    return given(tmp_path / "made.safetensors", known.Threshold(), data, Uniform(known.SIGMA))


def test_accuracies_are_the_known_ones(pixels):
    """A draw on a pixel x is right with probability x, so a vote of three with 3 x^2 - 2 x^3."""
    protocol = replace(QUICK, votes_per_image=40)
    one_draw, vote = judge(known.Threshold(), pixels, protocol, name="threshold")
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
    monkeypatch.setattr(judging, "BATCH", 20)
    inject(network, weights=PNI(initial=0.5))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 8, 8), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        labels = network(images / 255).argmax(1)
        labels[::3] = (labels[::3] + 1) % 4
    data = ImageSet("random", images, labels, ("a", "b", "c", "d"))
    noise = Uniform(0.2)
    made = given(tmp_path / "made.safetensors", network, data, noise)
    protocol = replace(QUICK, sigma=0.2, vote="soft", votes_per_image=2)
    one_draw, vote = judge(network, made, protocol, name="n", chunk_size=7)
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
        assert voted == pytest.approx(right / 48)
        assert single == pytest.approx(right_draws / 144)
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

    spy(adversarial, "attack_draws")
    spy(adversarial, "vote_afresh")
    spy(judging, "vote_afresh")
    made = given(tmp_path / "made.safetensors", known.Threshold(), known.pixels(*[150] * 300), Uniform(known.SIGMA))
    judge(known.Threshold(), made, replace(QUICK, seed=0), name="threshold")
    before, after = ({seed for module, seed in taken if module is one} for one in (adversarial, judging))
    assert (len(before), len(after)) == (6, 4)
    assert not before & after


def test_it_says_whose_images_they_are(pixels, network):
    del network
    row = judge(known.Threshold(), pixels, QUICK, name="threshold")[1]
    assert (row.own, row.made_on, row.made_at) == (True, "attacked", known.SIGMA)
    assert (row.model, row.attack, row.eps, row.norm, row.seed) == ("threshold", "darker", EPS, "linf", 4)
    assert not judge(known.Threshold(), pixels, replace(QUICK, sigma=0.1), name="threshold")[1].own
    other = known.Threshold()
    other.register_buffer("more", torch.ones(1))
    assert not judge(other, pixels, QUICK, name="other")[1].own
    assert json.loads(json.dumps(row.to_json()))["robust_interval"] == list(row.robust_interval)


def test_an_interrupted_judgement_goes_on(pixels, tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "BATCH", 50)

    def interrupt(done, total):
        assert total == 3
        if done == 2:
            raise KeyboardInterrupt

    options = {"name": "threshold", "out": tmp_path / "kept"}
    with pytest.raises(KeyboardInterrupt):
        judge(known.Threshold(), pixels, QUICK, on_progress=interrupt, **options)
    taken, vote_afresh = [], judging.vote_afresh
    monkeypatch.setattr(
        judging, "vote_afresh", lambda *args, **kw: taken.append(len(args[1])) or vote_afresh(*args, **kw)
    )
    rows = judge(known.Threshold(), pixels, QUICK, **options)
    assert taken == [28, 28]
    assert rows == judge(known.Threshold(), pixels, QUICK, name="threshold")
    with pytest.raises(CheckpointError, match="the evaluation there has num_samples = 3, this one 5"):
        judge(known.Threshold(), pixels, replace(QUICK, num_samples=5), **options)


def test_bad_protocols():
    def call(**options):
        JudgingProtocol(**{"sigma": 0.1, **options})

    check_refusals(
        call,
        [
            ({"sigma": -1.0}, "sigma: expected a finite number of at least 0, got -1"),
            ({"sigma_units": "mm"}, "sigma_units: expected one of normalized, pixel"),
            ({"noise": "pink"}, "noise: expected one of"),
            ({"vote": "hard"}, "vote: expected one of prediction, weighted, soft, got 'hard'"),
            ({"num_samples": 0}, "num_samples: expected an integer of at least 1, got 0"),
            ({"votes_per_image": 0}, "votes_per_image: expected an integer of at least 1, got 0"),
        ],
    )
