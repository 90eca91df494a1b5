"""Certified accuracy of a classifier whose true radii are known, and against a naive count; run, it is killed."""

import math
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import norm
from torch import nn

from launching import Started, run_script
from refusing import check_refusals
from smoothed import Gaussian, Normalize, Smoothed, inject, noiseless
from smoothed.data.imageset import ImageSet
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.evaluation import certified
from smoothed.evaluation.certified import DRAWS_PER_STEP, CertificationProtocol, evaluate_certified
from smoothed.injection import PNI
from smoothed.rng.seeds import mix, seeded
from smoothed.smoothing.certification import (
    TooFewSamplesWarning,
    certificate_from_counts,
    draw_counts,
    predict_from_counts,
)
from smoothed.smoothing.config import NoiseConfig
from smoothed.utils.intervals import interval

PIXELS = 3 * 4 * 4


class Brightness(nn.Module):
    """Class 1 where the mean pixel is above a half: the L2 distance to the boundary is |mean - 1/2| sqrt(d)."""

    def forward(self, inputs):
        margin = inputs.mean((1, 2, 3)) - 0.5
        return torch.stack([-margin, margin], 1)


def gray(margins, labels=None):
    margins = torch.as_tensor(margins)
    images = ((0.5 + margins) * 255).round().to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    return ImageSet("gray", images, (margins > 0).long() if labels is None else labels, ("dark", "bright"))


def distances(data):
    return (data.images[:, 0, 0, 0] / 255 - 0.5).abs() * math.sqrt(PIXELS)


def measure(data, model=None, sigmas=(0.25,), **options):
    noises = [NoiseConfig(sigma) for sigma in sigmas]
    return evaluate_certified(
        model or Brightness(), data, CertificationProtocol(**options), noises=noises, name="b"
    ).rows


def test_certified_accuracy_is_close_to_the_true_one_and_below_it():
    """Distances 0.14 .. 1.39; with 1000 draws a radius is at most 0.61, and short of the distance by a fifth."""
    data = gray(torch.arange(1, 11) / 50 * torch.tensor([1, -1]).repeat(5))
    radii = (0.0, 0.1, 0.2, 0.4, 0.6, 0.7)
    rows = measure(data, radii=radii, selection_samples=100)
    true = distances(data)
    for row in rows[:-1]:
        least = (true >= 1.25 * row.radius + 0.08).sum().item() / 10
        assert least <= row.certified <= (true >= row.radius).sum().item() / 10
        assert row.certified_interval == interval(row.certified * 10, 10)
        assert row.linf_eps == pytest.approx(row.radius / math.sqrt(48))
    assert rows[-1].certified == 0
    assert [row.radius for row in rows] == list(radii)
    assert (rows[0].certified, rows[0].abstained) == (rows[0].clean, 1 - rows[0].certified)
    assert rows[0].dimensions == PIXELS


def test_wrong_labels_are_neither_clean_nor_certified():
    data = gray([0.2, 0.2, -0.2, -0.2], labels=torch.tensor([1, 0, 0, 0]))
    (row,) = measure(data, radii=(0.0,))
    assert (row.certified, row.clean, row.abstained, row.predict_abstained) == (0.75, 0.75, 0.0, 0.0)
    (right,) = measure(gray([0.2, -0.2, -0.2]), radii=(0.0,))
    assert row.mean_radius == pytest.approx(0.75 * right.mean_radius, rel=0.1)


def test_the_boundary_is_abstained_on():
    """Half of the pixels 127/255, half 128/255: both classes have probability 1/2."""
    images = torch.tensor([127, 128], dtype=torch.uint8).repeat(5, 3, 4, 2)
    data = ImageSet("gray", images, torch.ones(5, dtype=torch.int64), ("dark", "bright"))
    (row,) = measure(data, radii=(0.0,), num_samples=100)
    assert (row.abstained, row.predict_abstained, row.clean, row.certified, row.mean_radius) == (1, 1, 0, 0, 0)


@pytest.mark.slow
def test_rows_are_the_naive_count(network, monkeypatch):
    """Image by image, from counts of the same draws, on a network with noise inside."""
    monkeypatch.setattr(certified, "BATCH", 20)
    inject(network, weights=PNI(initial=0.2))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 8, 8), generator=generator, dtype=torch.uint8)
    with torch.no_grad(), noiseless(network):
        labels = network(images / 255).argmax(1)
    data = ImageSet("random", images, labels, ("a", "b", "c", "d"))
    options = {"alpha": 0.05, "selection_samples": 2, "num_samples": DRAWS_PER_STEP + 3}
    seen = []
    result = evaluate_certified(
        network,
        data,
        CertificationProtocol(radii=(0.0, 0.01), seed=7, **options),
        noises=[NoiseConfig(0.02), NoiseConfig(0.05)],
        name="n",
        chunk_size=9,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    rows = result.rows
    assert [(row.sigma, row.radius) for row in rows] == [(0.02, 0.0), (0.02, 0.01), (0.05, 0.0), (0.05, 0.01)]
    assert seen[:4] == [(2, 120), (27, 120), (30, 120), (32, 120)]
    assert seen[-1] == (120, 120)
    for row in rows:
        right = abstained = clean = 0
        radii, outcomes = [], []
        model = Smoothed(network, Gaussian(row.sigma))
        for number, (inputs, own) in enumerate(data.batches(20)):

            def counted(group, start, draws, inputs=inputs, number=number, model=model):
                seed = mix(mix(mix(7, number), group), start)
                return draw_counts(model, inputs, [draws], generator=seeded(seed))[0]

            estimation = counted(1, 0, DRAWS_PER_STEP) + counted(1, DRAWS_PER_STEP, 3)
            for label, selected, estimated in zip(own, counted(0, 0, 2), estimation, strict=True):
                certificate = certificate_from_counts(
                    selected[None], estimated[None], sigma=row.sigma, alpha=options["alpha"]
                )
                found, radius = certificate.classes.item(), certificate.radius.item()
                predicted = predict_from_counts(estimated[None], options["alpha"]).item()
                outcomes.append((predicted, found, radius, estimated.tolist()))
                right += int(found == label and radius >= row.radius)
                abstained += int(found == -1)
                clean += int(predicted == label)
                radii.append(radius if found == label else 0.0)
        assert row.certified == right / len(data)
        assert row.abstained == abstained / len(data)
        assert row.clean == clean / len(data)
        assert row.mean_radius == pytest.approx(math.fsum(radii) / len(data))
        sigma = [0.02, 0.05].index(row.sigma)
        names = ("predicted", "certified_class", "radius", "counts")
        assert [list(values) for values in zip(*outcomes, strict=True)] == [
            result.tensors[name][sigma].tolist() for name in names
        ]
        certified_here = (result.tensors["certified_class"][sigma] == result.tensors["labels"]) & (
            result.tensors["radius"][sigma] >= row.radius
        )
        assert row.certified == certified_here.double().mean().item()
    assert torch.equal(result.tensors["labels"], data.labels)
    assert {name: tuple(tensor.shape) for name, tensor in result.tensors.items()} == {
        "labels": (24,), "predicted": (2, 24), "certified_class": (2, 24), "radius": (2, 24), "counts": (2, 24, 4),
    }  # fmt: skip
    assert 0 < rows[0].abstained < 1
    assert 0 < rows[1].certified < rows[0].certified < 1


def test_tensors_are_those_of_a_certificate_of_the_same_draws():
    """Up to 25 draws a group, a group is one call, so that `certify_inputs` draws the same from the same seeds."""
    data = gray([0.2, -0.2, 0.02, 0.15], labels=torch.tensor([1, 1, 1, 1]))
    options = {"alpha": 0.01, "selection_samples": 10, "num_samples": 25}
    protocol = CertificationProtocol(radii=(0.0, 0.3), seed=3, **options)
    result = evaluate_certified(Brightness(), data, protocol, noises=[NoiseConfig(0.25)], name="b")
    ((inputs, _),) = data.batches(4)
    selection, estimation = (
        draw_counts(
            Smoothed(Brightness(), Gaussian(0.25)), inputs, [draws], generator=seeded(mix(mix(mix(3, 0), group), 0))
        )[0]
        for group, draws in ((0, 10), (1, 25))
    )
    certificate = certificate_from_counts(selection, estimation, sigma=0.25, alpha=0.01)
    assert torch.equal(result.tensors["counts"][0], certificate.counts)
    assert torch.equal(result.tensors["certified_class"][0], certificate.classes)
    assert torch.equal(result.tensors["radius"][0], certificate.radius)
    assert torch.equal(result.tensors["predicted"][0], predict_from_counts(estimation, 0.01))
    assert result.tensors["certified_class"][0, :2].tolist() == [1, 0]
    # All 25 draws agree, so the bound is alpha^(1/25), and the radius sigma Phi^-1 of it.
    assert result.tensors["radius"][0, 0].item() == pytest.approx(0.25 * norm.ppf(0.01 ** (1 / 25)))


LONG = CertificationProtocol(radii=(0.0, 0.1), selection_samples=5, num_samples=60)


def measure_long(out=None, on_progress=lambda *_: None, protocol=LONG, count=600):
    """Two sigmas on three batches, of 250, 250 and 100 images."""
    data = gray(torch.linspace(-0.2, 0.2, count))
    options = {"noises": [NoiseConfig(0.25), NoiseConfig(0.5)], "name": "b", "out": out, "on_progress": on_progress}
    return evaluate_certified(Brightness(), data, protocol, **options).rows


@pytest.mark.slow
def test_a_killed_certification_goes_on_and_ends_with_the_same_numbers(tmp_path):
    """Killed in the second batch of the second sigma."""
    assert Started(run_script, __file__, str(tmp_path), str(4 * 65 + 30)).end().returncode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert len(before) == 4
    seen = []
    rows = measure_long(tmp_path, lambda *progress: seen.append(progress))
    assert rows == measure_long()
    assert [done for done, _ in seen[:5]] == [65, 130, 195, 260, 265]
    assert seen[-1] == (6 * 65, 6 * 65)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(list(tmp_path.glob("*.safetensors"))) == 6


@pytest.mark.slow
def test_radii_and_alpha_are_read_off_and_anything_else_is_refused(tmp_path):
    measure_long(tmp_path)
    other = replace(LONG, radii=(0.0, 0.2), alpha=0.01)
    seen = []
    assert measure_long(tmp_path, lambda *progress: seen.append(progress), other) == measure_long(protocol=other)
    assert len(seen) == 6  # no draws, but a word for each batch
    for options, message in (
        ({"seed": 1}, "seed = 1, got one with 0"),
        ({"num_samples": 61}, "num_samples = 61, got one with 60"),
        ({"selection_samples": 6}, "selection_samples = 6, got one with 5"),
    ):
        with pytest.raises(CheckpointError, match=f"out: expected an evaluation with {message}"):
            measure_long(tmp_path, protocol=replace(LONG, **options))
    with pytest.raises(CheckpointError, match="images = 599, got one with 600"):
        measure_long(tmp_path, count=599)


def test_rows_say_what_was_done():
    (row,) = measure(gray([0.2]), radii=(0.1,), alpha=0.01, selection_samples=5, num_samples=50, seed=3)
    written = row.to_json()
    assert {name: written[name] for name in ("model", "sigma", "sigma_normalized", "sigma_smallest", "images")} == {
        "model": "b",
        "sigma": 0.25,
        "sigma_normalized": None,
        "sigma_smallest": 0.25,
        "images": 1,
    }
    assert (row.alpha, row.selection_samples, row.num_samples, row.seed) == (0.01, 5, 50, 3)
    assert row.precision == "float32"


def test_normalized_sigma_is_measured_by_its_smallest_channel():
    model = Brightness()
    model.normalize = Normalize((0.0, 0.0, 0.0), (0.5, 0.25, 1.0))
    protocol, noise = CertificationProtocol(radii=(0.0,), num_samples=50), NoiseConfig(sigma_normalized=0.4)
    (row,) = evaluate_certified(model, gray([0.2]), protocol, noises=[noise], name="b").rows
    assert row.sigma == pytest.approx(0.4 * (0.5 + 0.25 + 1.0) / 3)
    assert (row.sigma_normalized, row.sigma_smallest) == (0.4, 0.1)


def test_too_few_draws_are_told_of_once(monkeypatch):
    monkeypatch.setattr(certified, "BATCH", 2)
    with pytest.warns(TooFewSamplesWarning, match="5 draws abstain on every image") as caught:
        (row,) = measure(gray([0.2] * 3), radii=(0.0,), num_samples=5)
    assert len(caught) == 1
    assert row.abstained == 1


def test_bad_protocols():
    check_refusals(
        CertificationProtocol,
        [
            ({"alpha": 0.7}, "alpha: expected a number in"),
            ({"selection_samples": 0}, "selection_samples: expected an integer of at least 1, got 0"),
            ({"num_samples": 0}, "num_samples: expected an integer of at least 1, got 0"),
            ({"radii": (0.1, -0.1)}, "radii: expected a finite number of at least 0, got -0.1"),
            ({"radii": (0.1, 0.1)}, "radii: expected at least one radius and no repeated ones"),
            ({"radii": ()}, "radii: expected at least one radius and no repeated ones"),
        ],
    )


def test_a_sigma_of_zero_is_refused_before_any_draw():
    seen = []
    with pytest.raises(ArgumentError, match="sigma: expected a standard deviation above 0"):
        evaluate_certified(
            Brightness(),
            gray([0.2]),
            CertificationProtocol(),
            noises=[NoiseConfig(0.1), NoiseConfig(0.0)],
            name="b",
            on_progress=lambda *done: seen.append(done),
        )
    assert not seen


if __name__ == "__main__":

    def kill(done, _total):
        if done >= int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

    measure_long(Path(sys.argv[1]), kill)
