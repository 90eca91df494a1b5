"""The public evaluations of any classifier, with own attacks, votes and noise, where the outcomes are known.

A pixel x is of class 0 where it is above a half. `known` says what noise makes of that.
"""

import copy
import random
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import known
import smoothed
from refusing import check_refusals
from smoothed.api.subject import Subject
from smoothed.errors import ArgumentError, CheckpointError, DataError
from smoothed.models import build
from smoothed.rng.seeds import mix, seeded

X = torch.linspace(0.21, 0.96, 16)
INPUTS, LABELS = X.view(-1, 1, 1, 1), torch.tensor([0, 0, 0, 1] * 4)
DATA = (INPUTS, LABELS)
EPS = 0.1


def threshold(inputs):
    """`known.Threshold` as a plain function."""
    score = inputs.flatten(1).mean(1) - 0.5
    return torch.stack([score, -score], 1) * 4


def right(x, labels=LABELS):
    """Whether a network without noise is right on pixels x."""
    return (x <= 0.5).long() == labels


def darker(model, inputs, labels, generator=None):  # noqa: ARG001 - an attack
    return (inputs - EPS).clamp(0, 1)


def opposite(logits):
    """A vote for the class with the smallest logit."""
    return (-logits).softmax(-1)


def shifted(inputs, generator):  # noqa: ARG001 - a noise
    return torch.full_like(inputs, -0.2)


def spread(inputs):
    """Uniform noise in (-1/2, 1/2) that takes the images alone."""
    return torch.rand_like(inputs) - 0.5


class Doubled(nn.Module):
    """Class 0 where twice the pixel is above a half: noise on the second layer counts half as much."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.ReLU(), known.Threshold()

    def forward(self, inputs):
        return self.second(self.first(2 * inputs))


def global_states():
    return torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()


def same(first, second):
    return torch.equal(first[0], second[0]) and first[1:] == second[1:]


@pytest.mark.parametrize(
    "classifier", [threshold, known.Threshold(), partial(threshold)], ids=["function", "module", "partial"]
)
@pytest.mark.parametrize("data", [DATA, (INPUTS.numpy(), LABELS.numpy())], ids=["tensors", "arrays"])
def test_a_plain_classifier_is_evaluated_by_one_draw(classifier, data):
    before, states = INPUTS.clone(), global_states()
    result = smoothed.evaluate(classifier, data, attack=darker, eps=EPS)
    assert same(states, global_states())
    (row,) = result.rows
    assert (row["vote"], row["num_samples"], row["sigma"], row["images"]) == ("none", 1, 0.0, 16)
    assert (row["clean"], row["robust"]) == (right(X).double().mean(), right(X - EPS).double().mean())
    assert (row["attack"], row["eps"], row["steps"]) == ("darker", EPS, None)
    assert torch.equal(result.tensors["clean.right"][0, 0], right(X))
    assert torch.equal(result.tensors["robust.right"][0, 0], right(X - EPS))
    assert torch.equal(result.tensors["labels"], LABELS)
    assert torch.equal(result.tensors["adversarial"][0], INPUTS - EPS)
    assert result.comparisons == []
    assert "make sure that the classes have the same order" in " ".join(str(result).split())
    assert torch.equal(INPUTS, before)


def test_named_attacks_reach_the_known_accuracy():
    """PGD moves every pixel by eps towards the other class; an attack of your own need not."""
    for attack, options in (("pgd", {"steps": 8}), ("fgsm", {}), ("epgd", {"steps": 8, "eot_samples": 2})):
        row = smoothed.evaluate(threshold, DATA, attack=attack, eps=EPS, **options)[0]
        assert row["robust"] == right(X - EPS * (1 - 2 * LABELS)).double().mean()
        assert row["attack"] == attack


def test_without_an_attack_only_clean_images_are_evaluated():
    result = smoothed.evaluate(smoothed.Smoothed(threshold, shifted, num_samples=2), DATA, attack="none")
    assert [row["clean"] for row in result.rows] == [right(X).double().mean(), right(X - 0.2).double().mean()]
    assert all(row["robust"] is row["eps"] is row["norm"] is None for row in result.rows)
    assert not any(name.startswith("robust") or name == "adversarial" for name in result.tensors)
    assert [gain.images for gain in result.comparisons] == ["clean"]
    assert "robust" not in str(result)


def test_own_vote_and_own_noise_without_randomness_are_exact():
    """All draws see x - 0.2; the vote for the smallest logit gives the other class."""
    classifier = smoothed.Smoothed(threshold, shifted, vote=opposite, num_samples=3)
    result = smoothed.evaluate(classifier, DATA, attack=darker, num_samples=(1, 3), votes=(opposite, "soft"))
    assert [(row["vote"], row["num_samples"], row["noise"], row["sigma"]) for row in result.rows[1:]] == [
        (vote, count, "shifted", None) for vote in ("opposite", "soft") for count in (1, 3)
    ]
    for row in result.rows[1:]:
        # No pixel is a tie here.
        clean, robust = (right(x) != (row["vote"] == "opposite") for x in (X - 0.2, X - EPS - 0.2))
        assert (row["clean"], row["robust"]) == (clean.double().mean(), robust.double().mean())
    own = smoothed.evaluate(classifier, DATA, attack="none").rows[1]
    assert (own["vote"], own["num_samples"]) == ("opposite", 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise",
    [
        spread,
        lambda inputs, generator: torch.rand(inputs.shape, generator=generator) - 0.5,
        smoothed.Uniform(known.SIGMA),
    ],
    ids=["images alone", "generator", "named"],
)
def test_random_noise_of_ones_own_is_reproducible_and_has_the_known_shares(noise):
    classifier, states = smoothed.Smoothed(known.Threshold(), noise, num_samples=200), global_states()
    options = {"attack": "none", "base": False}
    first, again, other = (smoothed.evaluate(classifier, DATA, seed=seed, **options) for seed in (3, 3, 4))
    assert same(states, global_states())
    shares = first.tensors["clean.shares"][0]
    assert torch.equal(shares, again.tensors["clean.shares"][0])
    assert not torch.equal(shares, other.tensors["clean.shares"][0])
    assert (shares[:, 0] - X).abs().max() < 5 * (0.25 / 200) ** 0.5
    assert abs(float((shares[:, 0] - X).mean())) < 5 * (0.25 / 200 / 16) ** 0.5
    # The same draws as those of the classifier itself, from the seed of the first batch.
    tally = classifier.tally(INPUTS, [200], votes=["prediction"], generator=seeded(mix(mix(3, 0, 0), 1)))
    assert torch.equal(tally["prediction"][200].scores / 200, shares)


def test_noise_at_a_layer():
    """2 x - 0.2 is above a half where x is above 0.35; noise on the image would need x above 0.45."""
    model = Doubled()
    at_layer = smoothed.Smoothed(model, shifted, layer="second", num_samples=2)
    on_image = smoothed.Smoothed(model, shifted, num_samples=2)
    for classifier, bound in ((at_layer, 0.35), (on_image, 0.45)):
        result = smoothed.evaluate(classifier, DATA, attack=darker)
        for name, x in (("clean", X), ("robust", X - EPS)):
            expected = (x <= bound).long() == LABELS
            assert torch.equal(result.tensors[f"{name}.right"][1, 0], expected)
    swept = smoothed.sweep(at_layer, DATA, sigmas=0.0, noise=lambda _: shifted, attack="none", num_samples=1)
    assert torch.equal(swept.tensors["right"][0, 0, 0, 0, 0], (X <= 0.35).long() == LABELS)
    quick = {"steps": 2, "restarts": 1, "eot_samples": 1, "queries": 2, "resubmissions": 1, "targets": 1}
    with pytest.raises(
        ArgumentError, match=r"layer: expected None \(noise on the input\), got noise at layer 'second'"
    ):
        smoothed.certify(smoothed.Smoothed(model, smoothed.Gaussian(0.1), layer="second"), DATA)
    noisy = smoothed.Smoothed(model, spread, layer="second", num_samples=1)
    seen = []
    handle = model.second.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    result = smoothed.worst_case(noisy, (INPUTS[-4:], LABELS[-4:]), eps=0.01, selection_votes=1, **quick)
    handle.remove()
    assert result.rows[-1]["network"] == "smoothed"
    # Attacks and votes see 2 x plus noise in (-1/2, 1/2): never what noise on the image would make of it.
    assert max(float(inputs.max()) for inputs in seen) <= 2 * (0.96 + 0.01) + 0.5 + 1e-6


def test_a_checkpoint_is_evaluated_by_its_name_with_its_smoothing():
    model = smoothed.load("resnet20-cni-w")
    options = {"images": 8, "num_samples": 2, "attack": "none", "name": "net"}
    by_name = smoothed.evaluate("resnet20-cni-w", "sample", **options)
    stored = model.checkpoint_header["smoothing"]
    assert by_name.rows[1]["sigma_normalized"] == stored["sigma_normalized"]
    assert by_name.data["classes_checked"] == "names"
    assert "make sure" not in str(by_name)
    noise = smoothed.Gaussian.normalized(stored["sigma_normalized"], model.normalize.std.flatten().tolist())
    by_hand = smoothed.evaluate(smoothed.Smoothed(model, noise, vote=stored["vote"]), "sample", **options)
    assert torch.equal(by_name.tensors["clean.shares"], by_hand.tensors["clean.shares"])


def test_a_result_knows_the_smoothing_of_its_classifier_or_of_the_checkpoint():
    options = {"images": 2, "attack": "none", "num_samples": 1}
    network = smoothed.load("resnet20-cni-w")
    stored = network.checkpoint_header["smoothing"]
    own = smoothed.evaluate(network, "sample", noises=[smoothed.Gaussian(0.1)], **options).setting["own_smoothing"]
    assert own["sigma"] == pytest.approx(stored["sigma"], rel=1e-6)
    assert {**own, "sigma": 0, "layer": None} == {
        **{name: stored[name] for name in ("noise", "sigma_normalized", "vote", "num_samples")},
        "sigma": 0,
        "layer": None,
    }
    classifier = smoothed.Smoothed(network, smoothed.Uniform(0.02), vote="soft", num_samples=3)
    own = smoothed.evaluate(classifier, "sample", noises=[smoothed.Gaussian(0.1)], **options).setting["own_smoothing"]
    assert [own[name] for name in ("noise", "sigma", "vote", "num_samples")] == ["uniform", 0.02, "soft", 3]
    assert smoothed.evaluate(threshold, DATA, attack="none").setting["own_smoothing"] is None


def test_the_row_of_a_network_is_one_draw_only_if_the_network_is_random():
    cases = ((lambda inputs: threshold(spread(inputs) + inputs), True), (threshold, False))
    for network, is_random in cases:
        classifier = smoothed.Smoothed(network, smoothed.Uniform(known.SIGMA), num_samples=3)
        result = smoothed.evaluate(classifier, DATA, attack="none")
        assert result.setting["random_network"] is is_random
        shown = " ".join(str(result).split())
        assert ("one draw" in shown) is is_random
        assert ("network without noise" in shown) is not is_random
        (axis,) = result.plot().axes
        assert axis.get_legend_handles_labels()[1][0] == ("one draw, no vote" if is_random else "network without noise")


@pytest.mark.slow
def test_results_show_the_name_that_a_network_was_loaded_by(tmp_path, monkeypatch):
    """A name, a file, a file of weights and a factory; `name=` goes first, and other networks have their type."""
    name, options = "resnet20-cni-w", {"images": 2, "attack": "none", "num_samples": 2}
    network = smoothed.load(name)
    result = smoothed.evaluate(smoothed.Smoothed(network, smoothed.Gaussian(0.06), num_samples=2), "sample", **options)
    assert (result.model["name"], result.model["type"]) == (name, "ResNet")
    assert {row["model"] for row in result.rows} == {name}
    assert result.provenance["command"].startswith(
        "smoothed.evaluate(Smoothed(load('resnet20-cni-w'), Gaussian(sigma=0.06), vote='prediction', num_samples=2), "
        "'sample', "
    )
    assert smoothed.evaluate(network, "sample", name="mine", images=2, attack="none").model["name"] == "mine"
    (tmp_path / "zoo").mkdir()
    smoothed.save(tmp_path / "zoo" / "some.safetensors", network, network.checkpoint_header)
    monkeypatch.chdir(tmp_path)
    plain = build("resnet20", num_classes=10)
    save_file(plain.state_dict(), "plain.safetensors")
    fast = smoothed.Fast(network.eval())
    for model, expected in (
        (smoothed.load("zoo/some"), "zoo/some"),
        (smoothed.load("zoo/some.safetensors"), "zoo/some.safetensors"),
        (smoothed.load(plain, weights="plain.safetensors"), "plain.safetensors"),
        (
            smoothed.load("smoothed.models:build", model_args={"architecture": "resnet20", "num_classes": 10}),
            "smoothed.models:build",
        ),
        (smoothed.load(copy.deepcopy(network).double()), name),
        (fast, name),
        (plain, "ResNet"),
    ):
        assert Subject.of(model, "sample", images=2).name == expected
    assert "loaded_name" not in vars(plain)
    assert (
        smoothed.check(network, "sample", images=2, steps=1)
        .provenance["command"]
        .startswith("smoothed.check(load('resnet20-cni-w'), 'sample'")
    )


CALLS = {
    "evaluate": lambda c, d: smoothed.evaluate(c, d, attack="pgd", steps=1, num_samples=(1, 2)),
    "sweep": lambda c, d: smoothed.sweep(c, d, sigmas=(0.0, 0.1), num_samples=2, votes="soft", attack="fgsm"),
    "certify": lambda c, d: smoothed.certify(c, d, num_samples=12, selection_samples=2),
    "check": lambda c, d: smoothed.check(c, d, steps=1, eot_samples=1, images=None),
    "attack": lambda c, d: smoothed.attack(c, d, attack="pgd", steps=1),
    "worst_case": lambda c, d: smoothed.worst_case(
        c, d, steps=1, restarts=1, eot_samples=1, queries=2, resubmissions=1, targets=1, selection_votes=1
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_the_classifier_and_the_arrays_are_left_as_they_were(call, network, images, labels):
    """A network in train mode with gradients, a hook, and frozen and trained layers."""
    network.train()
    network[1].eval()
    network[0].bias.requires_grad_(False)
    network(images).sum().backward()
    calls = []
    handle = network[4].register_forward_hook(lambda *_: calls.append(1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    grads = {name: p.grad if p.grad is None else p.grad.clone() for name, p in network.named_parameters()}
    modes = [module.training for module in network.modules()]
    kept, states = images[:4].clone(), global_states()
    data = (images[:4], labels[:4])
    result = CALLS[call](smoothed.Smoothed(network, smoothed.Gaussian(0.1), num_samples=2), data)
    assert result.data["images"] == 4
    assert torch.equal(images[:4], kept)
    assert same(states, global_states())
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (grads[name] is None)
        assert parameter.grad is None or torch.equal(parameter.grad, grads[name])
    assert [len(module._forward_hooks) for module in network.modules()] == [
        module is network[4] for module in network.modules()
    ]
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert not network[0].bias.requires_grad
    handle.remove()


def test_gains_are_those_of_the_outcomes():
    """The mean over images of the mean over runs, the last row of each vote against the first row."""
    classifier = smoothed.Smoothed(threshold, smoothed.Uniform(known.SIGMA), vote="soft")
    result = smoothed.evaluate(classifier, DATA, attack=darker, num_samples=(5, 1), votes=("soft", opposite), runs=3)
    names = [(gain.name, gain.images) for gain in result.comparisons]
    assert names == [
        (f"{vote} vote, M = 5, sigma 0.2887, over the network without noise", images)
        for vote in ("soft", "opposite") for images in ("clean", "darker")
    ]  # fmt: skip
    for gain, (row, kind) in zip(
        result.comparisons, [(1, "clean"), (1, "robust"), (3, "clean"), (3, "robust")], strict=True
    ):
        right = result.tensors[f"{kind}.right"].double().mean(1)
        assert gain.gain == pytest.approx((right[row] - right[0]).mean().item())
        assert result.rows[row]["num_samples"] == 5


def test_several_noises_are_compared_in_one_call():
    noises = [None, smoothed.Uniform(known.SIGMA), shifted]
    result = smoothed.evaluate(threshold, DATA, noises=noises, attack="none", num_samples=3, votes="prediction")
    assert [(row["vote"], row["noise"], row["sigma"]) for row in result.rows] == [
        ("none", "gaussian", 0.0),
        ("prediction", "gaussian", 0.0),
        ("prediction", "uniform", known.SIGMA),
        ("prediction", "shifted", None),
    ]
    assert result.tensors["setting"].tolist() == [0, 1, 2, 3]
    assert torch.equal(result.tensors["clean.right"][1, 0], right(X))
    assert torch.equal(result.tensors["clean.right"][3, 0], right(X - 0.2))


def test_a_sweep_is_that_of_evaluations_at_each_sigma():
    model, options = known.Threshold(), {"attack": "fgsm", "eps": EPS, "seed": 2}
    swept = smoothed.sweep(model, DATA, sigmas=(0.1, 0.0), votes=("soft", "prediction"), num_samples=(1, 4), **options)
    assert swept.setting["sigmas"] == [0.0, 0.1]
    for sigma in (0.0, 0.1):
        classifier = smoothed.Smoothed(model, smoothed.Gaussian(sigma))
        result = smoothed.evaluate(
            classifier, DATA, votes=("soft", "prediction"), num_samples=(1, 4), base=False, **options
        )
        for row in result.rows:
            cell = swept.row(vote=row["vote"], num_samples=row["num_samples"], sigma=sigma)
            assert {name: cell[name] for name in row} == row
    factory = smoothed.sweep(
        model, DATA, sigmas=(0.1, 0.0), noise=smoothed.Gaussian, votes=("soft",), num_samples=4, **options
    )
    of_soft = [index for index, vote in enumerate(swept.setting["votes"]) if vote == "soft"]
    assert torch.equal(factory.tensors["right"], swept.tensors["right"][:, :, of_soft][:, :, :, 1:])


def test_adversarial_examples_and_the_votes_on_them(tmp_path):
    result = smoothed.attack(threshold, DATA, attack=darker, eps=EPS, examples=tmp_path / "e.safetensors")
    (row,) = result.rows
    assert torch.equal(result.tensors["images"], INPUTS)
    assert torch.equal(result.tensors["adversarial"], INPUTS - EPS)
    assert torch.equal(result.tensors["clean.right"], right(X))
    assert torch.equal(result.tensors["robust.right"], right(X - EPS))
    assert (row["clean"], row["robust"]) == (right(X).double().mean(), right(X - EPS).double().mean())
    assert (row["attack"], row["eps"], row["num_samples"], row["sigma"]) == ("darker", EPS, 1, 0.0)
    assert result.summary["examples"] == str(tmp_path / "e.safetensors")
    again = smoothed.evaluate_examples(threshold, tmp_path / "e.safetensors", DATA)
    assert [each["robust"] for each in again.rows] == [row["robust"]] * 2
    with pytest.raises(ArgumentError, match=r"attack: expected an attack, one of fgsm, .*, got none"):
        smoothed.attack(threshold, DATA, attack="none")


def test_checks_measure_the_known_accuracies():
    result = smoothed.check(known.Threshold(), DATA, eps=EPS, steps=8, images=None, keep_images=5)
    attacked = right(X - EPS * (1 - 2 * LABELS)).float()
    for name, expected in (
        ("clean", right(X).float()),
        ("white_box", attacked),
        ("transfer", attacked),
        ("mean_network", attacked),
    ):
        assert torch.equal(result.tensors[f"{name}.accuracy"], expected)
    moved = result.tensors["adversarial"] - result.tensors["images"]
    torch.testing.assert_close(moved.flatten(), -EPS * (1 - 2 * LABELS[:5]).float())
    assert len(result) == 12
    assert result.summary["sentence"] in " ".join(str(result).split())


def test_the_worst_case_of_a_plain_network_is_that_of_its_mean_network():
    quick = {"steps": 8, "restarts": 1, "eot_samples": 1, "queries": 2, "resubmissions": 1}
    result = smoothed.worst_case(threshold, DATA, eps=EPS, **quick)
    assert {row["network"] for row in result.rows} == {"mean network"}
    worst = right(X - EPS * (1 - 2 * LABELS))
    assert torch.equal(result.tensors["mean.right"][-1, 0], worst.float())
    assert result.rows[-1]["robust"]["mean"] == worst.double().mean()
    assert result.comparisons == []
    noisy = smoothed.Smoothed(known.Threshold(), smoothed.Uniform(known.SIGMA), num_samples=1)
    result = smoothed.worst_case(noisy, DATA, eps=EPS, selection_votes=2, **quick)
    (gain,) = result.comparisons
    before, after = (result.tensors[f"{name}.right"][-1, 0].double() for name in ("mean", "smoothed"))
    assert gain.gain == pytest.approx((after - before).mean().item())
    assert gain.images == "the worst case of all attacks"


def test_certificates_need_a_vote(tmp_path):
    classifier = smoothed.Smoothed(known.Threshold(), smoothed.Gaussian(0.25), pack_draws=True)
    result = smoothed.certify(classifier, DATA, radii=0.1, num_samples=40, selection_samples=5, out=tmp_path)
    (row,) = result.rows
    certified = (result.tensors["certified_class"][0] == LABELS) & (result.tensors["radius"][0] >= 0.1)
    assert row["certified"] == certified.double().mean()
    assert result.setting["radii"] == [0.1]
    with pytest.raises(ArgumentError, match=r"classifier: expected a Smoothed classifier.*, got threshold"):
        smoothed.certify(threshold, DATA)


def test_an_interrupted_evaluation_continues_with_the_same_tensors(tmp_path):
    classifier = smoothed.Smoothed(known.Threshold(), spread, vote=opposite, num_samples=3)
    options = {"attack": darker, "runs": 2, "keep_images": 2}

    def interrupt(done, total):
        if done >= 0.8 * total:  # the fourth batch is at work
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        smoothed.evaluate(classifier, DATA, **options, out=tmp_path, on_progress=interrupt)
    assert len(list(tmp_path.glob("*batch*"))) == 3
    resumed, whole = (smoothed.evaluate(classifier, DATA, **options, out=out) for out in (tmp_path, None))
    assert resumed.rows == whole.rows
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())
    with pytest.raises(CheckpointError, match="out: expected an evaluation with seed = 1, got one with 0"):
        smoothed.evaluate(classifier, DATA, **options, out=tmp_path, seed=1)


def test_what_makes_no_sense_is_refused():
    def call(function="evaluate", classifier=threshold, data=DATA, **options):
        getattr(smoothed, function)(classifier, data, **options)

    vote = smoothed.Smoothed(threshold, shifted)
    check_refusals(
        call,
        [
            ({"classifier": 3}, "classifier: expected a Smoothed classifier, a callable from images .*, got int"),
            ({"attack": "pdg"}, r"attack: expected one of \d+ names, got .*; did you mean pgd.* All: fgsm, "),
            ({"eps": 8}, "eps: expected a radius of at most 1 .*, got 8; write 8/255"),
            ({"norm": "l0"}, "norm: expected one of linf, l2, got 'l0'"),
            ({"attack": "cw-l0"}, "eps: expected a number of pixels for an L0 attack, got none"),
            ({"precision": "half"}, "precision: expected one of"),
            ({"votes": "soft"}, "votes: expected a Smoothed classifier or noises beside it, got threshold without"),
            ({"num_samples": 8}, "num_samples: expected a Smoothed classifier or noises beside it"),
            ({"classifier": vote, "votes": "hard"}, "votes: expected one of prediction, weighted, soft, got 'hard'"),
            ({"classifier": vote, "votes": (5,)}, "votes: expected one of prediction, weighted, soft, got 5"),
            ({"classifier": vote, "votes": ("soft", "soft")}, "votes: expected no repeated values, got soft,soft"),
            ({"classifier": vote, "num_samples": 2.5}, "num_samples: expected an integer of at least 1, got 2.5"),
            ({"classifier": vote, "num_samples": (1, 0)}, "num_samples: expected an integer of at least 1, got 0"),
            ({"function": "sweep"}, "sigmas: expected exactly one of sigmas and sigmas_normalized, got neither"),
            ({"function": "sweep", "sigmas": "0.1"}, "sigmas: expected a finite number of at least 0, got '0.1'"),
            ({"function": "sweep", "sigmas": (0.1, 0.1)}, "sigmas: expected at least one value and no repeated ones"),
            ({"function": "sweep", "sigmas_normalized": 0.1}, "sigma_normalized: expected a model with a `norm"),
            ({"function": "sweep", "sigmas": 0.1, "noise": "pink"}, "noise: expected one of gaussian, uniform"),
            (
                {"function": "sweep", "sigmas_normalized": 0.1, "noise": smoothed.Gaussian},
                "sigmas_normalized: expected the name of a distribution beside it, got a function",
            ),
            ({"function": "worst_case", "eps": 2}, "eps: expected a radius of at most 1"),
            ({"function": "worst_case", "eot_samples": (4, 1)}, "eot_samples: expected ascending numbers"),
            ({"function": "check", "eps": 0.0}, "eps: expected a radius above 0"),
        ],
    )  # fmt: skip
    with pytest.raises(DataError, match="images: expected 1 to 16"):
        call(images=17)
    own = {"classifier": lambda inputs: threshold(inputs)[:, 0]}
    with pytest.raises(ArgumentError, match=r"model: expected float logits of shape \(16, K\), K >= 2"):
        call(**own)


def test_the_command_of_a_result_has_every_option_that_is_not_the_default():
    network, noise = known.Threshold(), smoothed.Uniform(0.1)
    plain = smoothed.evaluate(network, DATA)
    assert plain.provenance["command"] == "smoothed.evaluate(Threshold, tuple, seed=0)"
    own = {"attack": darker, "images": 8, "noises": [noise], "num_samples": [1, 3], "chunk_size": 9}
    assert smoothed.evaluate(network, DATA, **own).provenance["command"] == (
        "smoothed.evaluate(Threshold, tuple, attack=darker, noises=[Uniform], num_samples=[1, 3], images=8, seed=0)"
    )
    quick = {"steps": 1, "restarts": 1, "eot_samples": (1,), "queries": 2, "resubmissions": (1,), "selection_votes": 1}
    worst = smoothed.worst_case(smoothed.Smoothed(network, noise, num_samples=3), DATA, eps=EPS, **quick)
    assert worst.provenance["command"] == (
        "smoothed.worst_case(Smoothed, tuple, eps=0.1, steps=1, restarts=1, eot_samples=[1], queries=2, "
        "resubmissions=[1], seed=0, selection_votes=1)"
    )


def test_work_that_ends_after_a_batch_goes_on_there(tmp_path):
    pixels = torch.linspace(0, 1, 600).view(-1, 1, 1, 1)
    data, batches = (pixels, (pixels.flatten() <= 0.5).long()), []
    options = {"attack": "none", "out": tmp_path / "run"}

    def stop(done, total):
        batches.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        smoothed.evaluate(known.Threshold(), data, on_batch=stop, **options)
    stored = set((tmp_path / "run").rglob("*.safetensors"))
    assert batches == [(1, 3), (2, 3)]
    assert len(stored) == 2
    result = smoothed.evaluate(known.Threshold(), data, on_batch=lambda *work: batches.append(work), **options)
    assert batches[2:] == [(1, 3), (2, 3), (3, 3)]
    assert result.tensors["clean.right"].shape[-1] == 600
    assert stored < set((tmp_path / "run").rglob("*.safetensors"))
