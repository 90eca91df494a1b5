"""Evaluation against models whose numbers are known, and against a naive loop."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

import known
from refusing import check_refusals
from smoothed import CNI, Gaussian, Normalize, inject
from smoothed.attacks import pgd
from smoothed.data.imageset import ImageSet
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.evaluation.correctness import single_draw_accuracy
from smoothed.evaluation.paper_protocol.evaluate import PaperProtocol, evaluate_paper_protocol
from smoothed.evaluation.paper_protocol.rows import ONE_DRAW, Row, choose_sigma, smoothing_card
from smoothed.smoothing.config import NoiseConfig
from smoothed.utils.intervals import interval


class Brightness(nn.Module):
    """Class 1 where the mean pixel is above a half: an attack of eps moves every mean by eps, exactly."""

    def forward(self, inputs):
        margin = inputs.mean((1, 2, 3)) - 0.5
        return torch.stack([-margin, margin], 1) * 50


@pytest.fixture
def data():
    """Gray images whose margins are 0.01, 0.02, ... 0.20, alternately dark and bright, all classified correctly."""
    margins = torch.arange(1, 21) / 100 * torch.tensor([1, -1]).repeat(10)
    images = ((0.5 + margins) * 255).round().to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    return ImageSet("gray", images, (margins > 0).long(), ("dark", "bright"))


def test_known_clean_and_robust_accuracy(data):
    eps = 0.085
    protocol = PaperProtocol(eps=eps, num_samples=(1, 4))
    rows = evaluate_paper_protocol(Brightness(), data, protocol, noises=[NoiseConfig(0.0)], name="b").rows
    survivors = sum(abs(value / 255 - 0.5) > eps for value in data.images[:, 0, 0, 0].tolist())
    assert [(row.vote, row.num_samples) for row in rows] == [
        (ONE_DRAW, 1),
        *((vote, count) for vote in ("prediction", "weighted", "soft") for count in (1, 4)),
    ]
    for row in rows:
        assert (row.clean, row.robust, row.images) == (1.0, survivors / 20, 20)
        assert row.clean_interval == interval(20, 20)
        assert row.robust_interval == interval(survivors, 20)
        assert row.to_json()["eps"] == eps


def test_a_vote_recovers_what_noise_takes(data):
    noisy = PaperProtocol(eps=0.0, num_samples=(1, 400), votes=("prediction",), runs=3)
    noises = [NoiseConfig(0.5)]
    one, many = evaluate_paper_protocol(Brightness(), data, noisy, noises=noises, name="b", base=False).rows
    assert one.clean < 0.95
    assert many.clean > one.clean + 0.1
    assert one.runs == 3
    assert one.clean_std > 0


@pytest.mark.slow
def test_same_seed_same_rows_whatever_the_chunk(network):
    inject(network, weights=CNI())
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 8, 8), generator=generator, dtype=torch.uint8)
    data = ImageSet("random", images, torch.randint(4, (20,), generator=generator), ("a", "b", "c", "d"))
    protocol = PaperProtocol(steps=2, num_samples=(1, 3), seed=5)
    noises = [NoiseConfig(0.05), NoiseConfig(0.1)]
    first, second = (
        evaluate_paper_protocol(network, data, protocol, noises=noises, name="n", chunk_size=size).rows
        for size in (250, 7)
    )
    assert first == second
    assert len(first) == 1 + 2 * 3 * 2


def darker(_model, inputs, _labels, generator=None):  # noqa: ARG001 - an attack
    """Every pixel darker by 0.1."""
    return (inputs - 0.1).clamp(0, 1)


def brighter(_model, inputs, _labels):
    return (inputs + 0.1).clamp(0, 1)


def confident(logits):
    """A soft vote on sharpened logits."""
    return (2 * logits).softmax(1)


def measured(keep_images=5, **options):
    """20 pixels, the base network and two noises, two votes, one of them a function, two runs."""
    values = [60 + 9 * place for place in range(20)]
    protocol = PaperProtocol(**{"attack": darker, "votes": ("prediction", confident), "num_samples": (1, 5), **options})
    noises = [NoiseConfig(0.1), NoiseConfig(known.SIGMA, law="uniform")]
    data = known.pixels(*values)
    return values, evaluate_paper_protocol(
        known.Threshold(), data, protocol, noises=noises, name="t", keep_images=keep_images
    )


def test_tensors_are_those_of_the_rows():
    values, result = measured(runs=2, seed=3)
    tensors, rows = result.tensors(), result.rows
    assert [(row.vote, row.num_samples, row.noise) for row in rows] == [
        (ONE_DRAW, 1, "gaussian"),
        *(
            (*place, noise)
            for noise in ("gaussian", "uniform")
            for place in product(("prediction", "confident"), (1, 5))
        ),
    ]
    assert tensors["setting"].tolist() == [0, *[1] * 4, *[2] * 4]
    for kind in ("clean", "robust"):
        for name in ("right", "margin", "draws"):
            assert tensors[f"{kind}.{name}"].shape == (9, 2, 20)
        assert tensors[f"{kind}.shares"].shape == (9, 5, 2)
        for number, row in enumerate(rows):
            right = tensors[f"{kind}.right"][number]
            assert getattr(row, kind) == pytest.approx(right.double().mean().item())
            assert torch.equal(right, result.of_row(number, "right")[0 if kind == "clean" else 1])
            assert torch.equal(right, tensors[f"{kind}.margin"][number] >= 0)  # a tie goes to class 0, the true one
            shares = tensors[f"{kind}.shares"][number]
            assert torch.equal(shares.argmax(1) == 0, right[0, :5])
            if row.vote == "prediction":  # shares are counts
                assert torch.equal((shares * row.num_samples).round() / row.num_samples, shares)
            fewest = row.num_samples // 2 + 1 if row.vote == "prediction" else row.num_samples  # others have no bound
            draws = tensors[f"{kind}.draws"][number]
            assert ((draws >= fewest) & (draws <= row.num_samples)).all()
            assert (draws[0] < row.num_samples).any() == (fewest < row.num_samples)  # although images are kept
    assert torch.equal(tensors["images"].flatten() * 255, torch.tensor(values[:5]).float())
    assert tensors["adversarial"].shape == (3, 5, 1, 1, 1)
    assert torch.equal(tensors["adversarial"], (tensors["images"] - 0.1).expand(3, 5, 1, 1, 1))
    base = torch.tensor(values) / 255
    assert torch.equal(tensors["clean.right"][0], (base > 0.5).expand(2, -1))
    assert torch.equal(tensors["robust.right"][0], (base - 0.1 > 0.5).expand(2, -1))


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"attack": "none"}, {"robust.right", "robust.margin", "robust.draws", "robust.shares", "adversarial"}),
        ({"keep_images": 0}, {"clean.shares", "robust.shares", "images", "adversarial"}),
        ({"keep_images": 0, "attack": "none"}, {"robust.right", "robust.margin", "robust.draws", "clean.shares",
                                                "robust.shares", "images", "adversarial"}),
    ],
)  # fmt: skip
def test_tensors_of_what_was_not_measured_are_left_out(options, missing):
    everything, some = measured()[1].tensors(), measured(**options)[1]
    assert everything.keys() - some.tensors().keys() == missing
    assert some.tensors().keys() <= everything.keys()
    if options.get("attack") == "none":
        assert all(row.robust is row.robust_interval is row.eps is row.steps is row.norm is None for row in some.rows)


def test_a_resumed_evaluation_has_the_same_tensors(tmp_path):
    values = [60 + 9 * place for place in range(20)]
    options = {"noises": [known.UNIFORM], "name": "t", "keep_images": 3, "out": tmp_path}
    protocol = PaperProtocol(attack=darker, num_samples=(1, 3), runs=2)

    def interrupt(done, _total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_paper_protocol(known.Threshold(), known.pixels(*values), protocol, **options, on_progress=interrupt)
    resumed = evaluate_paper_protocol(known.Threshold(), known.pixels(*values), protocol, **options)
    whole = evaluate_paper_protocol(known.Threshold(), known.pixels(*values), protocol, **{**options, "out": None})
    assert resumed.rows == whole.rows
    assert resumed.tensors().keys() == whole.tensors().keys()
    assert all(torch.equal(tensor, resumed.tensors()[name]) for name, tensor in whole.tensors().items())
    for changed, message in (
        ({"keep_images": 4}, "out: expected an evaluation with keep_images = 4, got one with 3"),
        ({"layer": ""}, "out: expected an evaluation with layer = '', got one with None"),
    ):
        with pytest.raises(CheckpointError, match=message):
            evaluate_paper_protocol(known.Threshold(), known.pixels(*values), protocol, **{**options, **changed})
    other = replace(protocol, attack=brighter)
    with pytest.raises(CheckpointError, match="out: expected an evaluation with attack = 'brighter', got one with 'd"):
        evaluate_paper_protocol(known.Threshold(), known.pixels(*values), other, **options)


def test_single_draw_accuracy_is_a_naive_loop(network, generator):
    images = torch.randint(0, 256, (30, 3, 8, 8), generator=generator, dtype=torch.uint8)
    data = ImageSet("random", images, torch.randint(4, (30,), generator=generator), ("a", "b", "c", "d"))
    right = sum(
        int(network(image[None] / 255).argmax()) == label for image, label in zip(images, data.labels, strict=True)
    )
    assert single_draw_accuracy(network, data, batch_size=7) == right / 30

    def attack(model, inputs, labels, generator):
        return pgd(model, inputs, labels, eps=0.1, steps=5, random_start=False, generator=generator)

    assert single_draw_accuracy(network, data, attack=attack) < right / 30


def row(sigma, robust, vote="prediction", count=8):
    return Row.from_counts(
        clean=[9], robust=[robust], images=10, model="m", vote=vote, num_samples=count, sigma=sigma,
        sigma_normalized=4 * sigma, noise="gaussian",
        attack="pgd", steps=7, eot_samples=1, precision="float32", seed=0, eps=0.1,
    )  # fmt: skip


def test_the_sigma_chosen_is_the_most_robust_and_the_smallest_of_equals():
    rows = [row(0, 9, ONE_DRAW, 1), row(0.0, 4), row(0.3, 6), row(0.1, 6), row(0.2, 9, "soft"), row(0.2, 9, count=1)]
    chosen = choose_sigma(rows)
    assert chosen.sigma == 0.1
    card = smoothing_card(chosen, rows, "cifar10 validation")
    assert [tried["sigma"] for tried in card["tried"]] == [0.0, 0.3, 0.1]
    assert (card["sigma"], card["sigma_normalized"], card["chosen_on"]) == (0.1, 0.4, "cifar10 validation")
    assert NoiseConfig.from_header({"smoothing": card}) == NoiseConfig(sigma_normalized=0.4)


def test_bad_protocols():
    check_refusals(
        PaperProtocol,
        [
            ({"votes": ("hard",)}, "votes: expected one of prediction, weighted, soft, got 'hard'"),
            ({"num_samples": (0,)}, "num_samples: expected an integer of at least 1, got 0"),
            ({"runs": 0}, "runs: expected an integer of at least 1"),
            ({"norm": "l0"}, "norm: expected one of linf, l2, got 'l0'"),
            ({"votes": (confident, confident)}, "votes: expected no repeated values, got confident,confident"),
        ],
    )


def test_bad_settings(data):
    with pytest.raises(ArgumentError, match=r"attack: expected one of .*, got 'nfgsm'"):
        PaperProtocol(attack="nfgsm").build_attack()
    with pytest.raises(ArgumentError, match="eps: expected a finite number of at least 0, got -1"):
        evaluate_paper_protocol(Brightness(), data, PaperProtocol(eps=-1.0), noises=[NoiseConfig(0.0)], name="b")
    with pytest.raises(ArgumentError, match="sigma_normalized: expected a model with a `normalize` layer, got Bright"):
        evaluate_paper_protocol(
            Brightness(), data, PaperProtocol(), noises=[NoiseConfig(sigma_normalized=0.1)], name="b"
        )


def test_bad_noises():
    check_refusals(
        NoiseConfig,
        [
            ({"sigma": -0.1}, "sigma: expected a finite number of at least 0, got -0.1"),
            ({"sigma_normalized": -0.1}, "sigma_normalized: expected a finite number of at least 0, got -0.1"),
            ({"sigma": 0.1, "law": "pink"}, "noise: expected one of gaussian, uniform, laplace"),
            ({}, "sigma: expected exactly one of sigma and sigma_normalized, got neither"),
            ({"sigma": 0.1, "sigma_normalized": 0.4}, "sigma: expected exactly one of .*, got both"),
        ],
    )


def test_normalized_sigma_is_scaled_by_the_models_deviation():
    model = nn.Sequential()
    model.normalize = Normalize((0.0, 0.0, 0.0), (0.2, 0.5, 0.1))
    config = NoiseConfig(sigma_normalized=0.24)
    noise = config.for_model(model)
    assert noise == Gaussian(tuple(0.24 * value for value in model.normalize.std.flatten().tolist()))
    assert config.to_json(model) == {
        "noise": "gaussian",
        "sigma": pytest.approx(0.24 * 0.8 / 3),
        "sigma_normalized": 0.24,
    }


@pytest.mark.parametrize("options", [{"num_samples": (8, 8)}, {"votes": ("soft", "soft")}])
def test_nothing_is_counted_twice(options):
    (name,) = options
    with pytest.raises(ArgumentError, match=f"{name}: expected no repeated values"):
        PaperProtocol(**options)


def test_rows_say_what_was_done_and_no_more():
    assert (
        PaperProtocol(attack="fgsm").setting() | {"steps": 1, "eot_samples": 1}
        == PaperProtocol(attack="fgsm").setting()
    )
    assert PaperProtocol(attack="pgd", steps=3).setting()["steps"] == 3
    assert PaperProtocol(attack="epgd", eot_samples=4, seed=2).setting() == {
        "attack": "epgd",
        "steps": 7,
        "eot_samples": 4,
        "eps": 8 / 255,
        "norm": "linf",
        "max_queries": None,
        "sees": None,
        "precision": "float32",
        "seed": 2,
    }
    assert PaperProtocol(attack="cw-l0", norm="l2", eps=3).setting()["norm"] == "l0"
    assert PaperProtocol(norm="l2").setting()["eps"] == 0.5
    with pytest.raises(ArgumentError, match="eps: expected a number of pixels for an L0 attack, got none"):
        PaperProtocol(attack="cw-l0").setting()
    own = PaperProtocol(attack=darker, eps=0.1, steps=9).setting()
    assert (own["attack"], own["eps"], own["steps"], own["eot_samples"]) == ("darker", 0.1, None, None)
    for attack, moved in ((darker, 0.4), (brighter, 0.6)):
        attacked = PaperProtocol(attack=attack).build_attack()(None, torch.full((1, 1, 2, 2), 0.5), torch.tensor([0]))
        assert torch.equal(attacked, torch.full((1, 1, 2, 2), moved))
    clean = PaperProtocol(attack="none").setting()
    assert PaperProtocol(attack="none").build_attack() is None
    assert {name for name, value in clean.items() if value is not None} == {"attack", "precision", "seed"}
    asking = PaperProtocol(attack="square", max_queries=5, sees="shares").setting()
    assert (asking["max_queries"], asking["sees"]) == (5, "shares")
