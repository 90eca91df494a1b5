"""What is certified withstands attacks: an L2 attack within the radius, and those of the worst-case protocol."""

import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

import known
from refusing import check_refusals
from smoothed import PNI, Gaussian, Smoothed, inject
from smoothed.attacks import expected_loss, margin, pgd
from smoothed.data.imageset import ImageSet
from smoothed.errors import CheckpointError
from smoothed.evaluation.correctness import attack_noisy_classifier
from smoothed.evaluation.worst_case.certified import certification_protocol, certify_worst_case
from smoothed.evaluation.worst_case.evaluate import evaluate_worst_case
from smoothed.rng.seeds import seeded
from smoothed.smoothing.certification import TooFewSamplesWarning
from smoothed.smoothing.config import NoiseConfig

SHAPE = (3, 4, 4)
SIGMA = 0.25
PROTOCOL = known.quick(NoiseConfig(SIGMA))


def linear(*, noisy):
    """Two classes of a (3, 4, 4) image by the sign of a unit slope, and images with a distance to it of 0 to 0.8."""
    slope = torch.randn(48, generator=seeded(1))
    slope /= slope.norm()
    layer = nn.Linear(48, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-slope, slope]))
        layer.bias.copy_(torch.tensor([1.0, -1.0]) * (slope * 0.5).sum())
    network = nn.Sequential(nn.Flatten(), layer).requires_grad_(False)
    if noisy:
        inject(network, weights=PNI(initial=0.5))
    distances = torch.linspace(-0.8, 0.8, 40)[:, None]
    sideways = 0.1 * torch.randn(40, 48, generator=seeded(2))
    sideways -= (sideways @ slope)[:, None] * slope
    images = ((0.5 + sideways + distances * slope) * 255).round().to(torch.uint8).view(-1, *SHAPE)
    labels = ((images / 255 - 0.5).flatten(1) @ slope > 0).long()
    return network, ImageSet("linear", images, labels, ("below", "above"))


@pytest.mark.slow
@pytest.mark.parametrize("noisy", [False, True], ids=["input noise", "both noises"])
def test_certified_accuracy_is_at_most_what_an_l2_attack_leaves(noisy):
    """For each radius on the same images. Radii in the wrong unit, four times as large, would be found out."""
    network, data = linear(noisy=noisy)
    radii = (0.1, 0.2, 0.4)
    certification = certification_protocol(network, data, PROTOCOL, selection_samples=10, num_samples=300)
    certification = replace(certification, radii=radii)
    rows = certify_worst_case(network, data, PROTOCOL, certification, name="linear").rows
    certified = {row.radius: row.certified for row in rows}
    ((inputs, labels),) = data.batches(len(data))
    smoothed = Smoothed(network, Gaussian(SIGMA), num_samples=200, pack_draws=not noisy, seed=3)
    left = []
    for radius in radii:

        def attack(model, inputs, labels, generator=None, radius=radius):
            options = {"eps": radius, "norm": "l2", "steps": 6, "objective": expected_loss(4, margin)}
            return pgd(model, inputs, labels, generator=generator, **options)

        made = attack_noisy_classifier(network, Gaussian(SIGMA), attack, inputs, labels, seed=5)
        assert (made - inputs).flatten(1).norm(dim=1).max() <= radius * 1.0001
        left.append(float((smoothed.predict(made) == labels).double().mean()))
    assert all(0 < certified[radius] <= least for radius, least in zip(radii, left, strict=True))
    assert certified[0.1] > left[-1]


@pytest.mark.slow
def test_what_is_certified_at_the_covering_radius_withstands_the_protocol(tmp_path):
    """A pixel x is class 0 with probability Phi((x - 1/2) / sigma): a distance of x - 1/2, and d = 1."""
    values = torch.linspace(0.4, 1, 30).mul(255).round().int().tolist()
    model, data = known.Threshold(), known.pixels(*values)
    protocol = known.quick(NoiseConfig(SIGMA), num_samples=8, eps=0.15, eot_samples=(1,), selection_votes=2)
    certification = certification_protocol(model, data, protocol, selection_samples=10, num_samples=300)
    rows = certify_worst_case(model, data, protocol, certification, name="t", out=tmp_path).rows
    distance = torch.tensor(values) / 255 - 0.5
    for row in rows:
        least = (distance >= 1.4 * row.radius + 0.08).double().mean()
        assert least <= row.certified <= (distance >= row.radius).double().mean()
    worst = evaluate_worst_case(model, data, protocol, name="t", out=tmp_path).rows[-1]
    (covering,) = (row for row in rows if row.linf_eps == protocol.eps)
    assert (worst.network, worst.attack) == ("smoothed", "worst case")
    assert 0 < covering.certified < worst.robust.mean
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert sum(path.parent.name == "certified" for path in before) == 1
    assert certify_worst_case(model, data, protocol, certification, name="t", out=tmp_path).rows == rows
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before
    with pytest.raises(CheckpointError, match="out: expected an evaluation with num_samples = 50, got one with 300"):
        certify_worst_case(model, data, protocol, replace(certification, num_samples=50), name="t", out=tmp_path)


def test_the_settings_are_those_of_the_protocol():
    network, data = linear(noisy=False)
    protocol = replace(PROTOCOL, eps=8 / 255, seed=4, precision="bf16")
    settings = certification_protocol(network, data, protocol, selection_samples=7, num_samples=70)
    assert settings.radii == (0.0, 8 / 255, 0.1, 8 / 255 * math.sqrt(48))
    assert (settings.selection_samples, settings.num_samples, settings.alpha) == (7, 70, 0.001)
    assert (settings.seed, settings.precision) == (4, "bf16")
    assert certification_protocol(network, data, replace(protocol, alpha=0.01)).alpha == 0.01
    assert certification_protocol(network, data, replace(protocol, eps=0.1)).radii == (0.0, 0.1, 0.1 * math.sqrt(48))


@pytest.mark.parametrize("pack_draws", [None, False])
def test_passes_hold_several_draws_only_if_the_classifier_allows_it(pack_draws):
    network, data = linear(noisy=False)
    protocol = replace(PROTOCOL, smoothing=replace(PROTOCOL.smoothing, pack_draws=pack_draws))
    certification = certification_protocol(network, data, protocol, selection_samples=4, num_samples=20)
    rows = list[int]()
    network.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TooFewSamplesWarning)
        certify_worst_case(network, data, protocol, certification, name="linear")
    assert (max(rows) > len(data)) == (pack_draws is None)


def test_what_cannot_be_certified_is_refused():
    def call(**options):
        network, data = linear(noisy=False)
        certification_protocol(network, data, known.quick(**options))

    check_refusals(
        call,
        [
            ({"noise": known.UNIFORM}, "noise: expected Gaussian noise on the input, got Uniform"),
            ({"noise": NoiseConfig(0.0)}, "sigma: expected a standard deviation above 0"),
            (
                {"noise": NoiseConfig(SIGMA), "vote": "soft"},
                "vote: expected prediction, the only vote that can be certified, got .*soft vote",
            ),
        ],
    )
