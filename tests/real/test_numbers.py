"""What the public calls say about torchvision's ResNet is what plain torch and scipy say."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import beta, norm
from torch import nn
from torch.testing import assert_close

import smoothed
from real.foreign import (
    CLASSES,
    MEAN,
    STD,
    Augmented,
    Records,
    loader,
    normalized,
    separable_images,
    trained_resnet,
    trained_weights,
    write_folder,
    write_module,
)
from smoothed import ArgumentError, Gaussian, Smoothed

EPS = 4 / 255
COUNT = 40


@cache
def images_and_labels():
    return separable_images(COUNT, 5)


def network():
    return smoothed.load(trained_resnet(), normalize=(MEAN, STD))


@torch.no_grad()
def plain_right(inputs):
    """Whether the network is right on each of the first images, floats in [0, 1], in plain torch."""
    return trained_resnet()(normalized(inputs * 255)).argmax(1) == images_and_labels()[1][: len(inputs)]


def test_the_network_tells_most_images_apart():
    images, _ = images_and_labels()
    assert 0.85 < plain_right(images.float() / 255).double().mean() < 1


def collate(records):
    """Batches of records as an image processor makes them."""
    pixels = [torch.from_numpy(np.array(record["photo"])).permute(2, 0, 1) / 255 for record in records]
    return {"pixel_values": torch.stack(pixels), "labels": torch.tensor([record["part"] for record in records])}


FORMS = {
    "bytes": lambda images, labels: (images, labels),
    "float64": lambda images, labels: (images.double() / 255, labels),
    "NumPy": lambda images, labels: (np.asarray(images), np.asarray(labels, dtype=np.int32)),
    "records": Records,
    "pairs": lambda images, labels: list(zip(images, labels.tolist(), strict=True)),
    "a shuffled loader": lambda images, labels: loader(images, labels, shuffle=True),
    "a loader of records, with workers and its own batches": lambda images, labels: torch.utils.data.DataLoader(
        Records(images, labels), batch_size=6, num_workers=2, collate_fn=collate
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_accuracy_of_plain_torch(form):
    images, labels = images_and_labels()
    kept = images.clone(), labels.clone()
    right = plain_right(images.float() / 255)
    data = FORMS[form](images, labels)
    keys = ("photo", "part") if form == "records" else None
    result = smoothed.evaluate(network(), data, attack="none", keys=keys)
    assert torch.equal(result.tensors["clean.right"][0, 0].bool(), right)
    assert result.rows[0]["clean"] == pytest.approx(float(right.double().mean()))
    assert torch.equal(images, kept[0])
    assert torch.equal(labels, kept[1])


def test_a_folder_of_images_gives_the_accuracy_of_plain_torch(tmp_path):
    images, labels = images_and_labels()
    folder = write_folder(tmp_path / "parts", images, labels)
    for data in (f"{folder}@16", f"imagefolder:{folder}@16"):
        result = smoothed.evaluate(network(), data, attack="none")
        assert result.tensors["clean.right"].sum() == plain_right(images.float() / 255).sum()
        assert result.data["classes"] == list(CLASSES)


@pytest.mark.slow
def test_a_loader_with_augmentation_and_workers_gives_the_same_images_each_time():
    data = torch.utils.data.DataLoader(Augmented(*images_and_labels()), batch_size=8, num_workers=2, shuffle=True)
    model, state = network(), torch.random.get_rng_state()
    first, second = (smoothed.evaluate(model, data, attack="fgsm", eps=EPS) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())
    difference = first.tensors["images"] - images_and_labels()[0].float() / 255
    mirrored = difference.abs().amax((1, 2, 3)) > 0.15  # the added noise is below, the pixels' own noise is above
    assert 0.2 < mirrored.double().mean() < 0.8
    assert_close(difference[~mirrored].std(), torch.tensor(0.02), rtol=0.1, atol=0)


def test_fgsm_is_the_sign_of_the_gradient_and_is_judged_by_plain_torch():
    images, labels = images_and_labels()
    inputs = (images.float() / 255).requires_grad_()
    model, mean, std = trained_resnet(), torch.tensor(MEAN).view(-1, 1, 1), torch.tensor(STD).view(-1, 1, 1)
    losses = nn.functional.cross_entropy(model((inputs - mean) / std), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(losses, inputs)
    expected = (inputs.detach() + EPS * gradient.sign()).clamp(0, 1)
    result = smoothed.attack(network(), (images, labels), attack="fgsm", eps=EPS)
    sure = gradient.abs() > 1e-5 * gradient.abs().max()
    assert_close(result.tensors["adversarial"][sure], expected[sure], rtol=0, atol=1e-6)
    right = plain_right(result.tensors["adversarial"])
    assert torch.equal(result.tensors["robust.right"], right)
    assert result.rows[0]["robust"] == pytest.approx(float(right.double().mean()))
    assert result.rows[0]["robust"] < result.rows[0]["clean"]


ATTACKS = [
    ("pgd", "linf", EPS),
    ("epgd", "linf", EPS),
    ("apgd-ce", "linf", EPS),
    ("multi-targeted", "linf", EPS),
    ("square", "linf", EPS),
    ("pgd", "l2", 0.3),
    ("ddn", "l2", 0.3),
    pytest.param("cw-l0", "l0", 12, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("attack", "norm_name", "eps"), ATTACKS)
def test_attacks_stay_in_their_ball_and_are_judged_by_plain_torch(attack, norm_name, eps):
    images, labels = images_and_labels()
    count = 6 if norm_name == "l0" else COUNT
    inputs = images[:count].float() / 255
    options = {"images": count} if norm_name == "l0" else {"norm": norm_name}
    result = smoothed.attack(
        network(), (images, labels), attack=attack, eps=eps, steps=5, eot_samples=1, max_queries=50, **options
    )
    adversarial = result.tensors["adversarial"]
    assert (adversarial >= 0).all()
    assert (adversarial <= 1).all()
    change = (adversarial - inputs).flatten(1)
    if norm_name == "l0":
        size = (adversarial != inputs).any(1).flatten(1).sum(1).double()
    else:
        size = change.abs().amax(1) if norm_name == "linf" else change.norm(dim=1)
    assert (size <= eps + 1e-6).all()
    right = plain_right(adversarial)
    assert torch.equal(result.tensors["robust.right"], right)
    assert torch.equal(result.tensors["clean.right"], plain_right(inputs))
    assert right.sum() <= plain_right(inputs).sum()


def test_an_attack_that_needs_more_classes_names_others():
    with pytest.raises(ArgumentError, match=r"at least 4 classes for the DLR loss, got 2; .*multi-targeted or apgd-ce"):
        smoothed.attack(network(), images_and_labels(), attack="apgd-t", steps=1)


def test_votes_without_a_gradient_are_refused_with_the_way_out():
    classifier = Smoothed(network(), Gaussian(0.1), num_samples=2, seed=0)
    with pytest.raises(ArgumentError, match=r'logits without a gradient; .* use vote="soft"'):
        smoothed.evaluate(classifier.as_logits(), images_and_labels(), steps=1)
    with pytest.raises(ArgumentError, match="network: expected a network, got a Smoothed classifier"):
        smoothed.train(classifier, images_and_labels())
    soft = Smoothed(network(), Gaussian(0.1), num_samples=2, seed=0, vote="soft").as_logits()
    row = smoothed.evaluate(soft, images_and_labels(), images=10, steps=2, eps=EPS).rows[0]
    assert row["robust"] < row["clean"]


def test_vote_shares_are_those_of_a_naive_loop():
    """300 draws each: the shares of two independent counts differ by less than five standard errors."""
    images, labels = images_and_labels()
    inputs, draws, sigma = images[:8].float() / 255, 300, 0.15
    generator = torch.Generator().manual_seed(1)
    model = trained_resnet()
    with torch.no_grad():
        noisy = [inputs + sigma * torch.randn(inputs.shape, generator=generator) for _ in range(draws)]
        logits = torch.stack([model(normalized(images * 255)) for images in noisy])
    votes = {
        "prediction": nn.functional.one_hot(logits.argmax(-1), 2).double(),
        "soft": logits.softmax(-1).double(),
    }
    classifier = Smoothed(network(), Gaussian(sigma), num_samples=draws, seed=3)
    result = smoothed.evaluate(classifier, (images, labels), images=8, attack="none", votes=tuple(votes))
    for number, (name, scores) in enumerate(votes.items(), 1):
        assert result.rows[number]["vote"] == name
        shares, expected = result.tensors["clean.shares"][number].double(), scores.mean(0)
        error = (2 * scores.var(0) / draws).sqrt()
        assert (scores.var(0) > 0).any()
        assert ((shares - expected).abs() <= 5 * error + 3 / draws).all()


def test_certified_radii_are_those_of_scipy():
    images, labels = images_and_labels()
    sigma, alpha, radii = 0.15, 0.01, (0.0, 0.1, 0.2, 0.3)
    classifier = Smoothed(network(), Gaussian(sigma), seed=0)
    options = {"alpha": alpha, "selection_samples": 20, "num_samples": 200, "radii": radii}
    result = smoothed.certify(classifier, (images, labels), **options)
    (counts,), (classes,), (radius,) = (
        result.tensors[name].numpy() for name in ("counts", "certified_class", "radius")
    )
    assert (counts.sum(1) == 200).all()
    certified = classes >= 0
    assert certified.any()
    hits = np.take_along_axis(counts, classes.clip(min=0)[:, None], 1)[:, 0]
    lower = beta.ppf(alpha, hits, 200 - hits + 1)
    np.testing.assert_allclose(radius[certified], sigma * norm.ppf(lower[certified]), rtol=1e-6)
    assert (radius[~certified] == 0).all()
    right = certified & (classes == labels.numpy())
    for row, limit in zip(result.rows, radii, strict=True):
        assert row["certified"] == pytest.approx((right & (radius >= limit)).mean())
        assert row["radius"] == limit


def test_a_sweep_begins_at_the_network_itself():
    images, labels = images_and_labels()
    options = {"votes": ("prediction", "soft"), "num_samples": (1, 4), "attack": "fgsm", "eps": EPS}
    result = smoothed.sweep(network(), (images, labels), sigmas=(0.0, 0.5), **options)
    clean, attacked = plain_right(images.float() / 255), None
    attacked = smoothed.attack(network(), (images, labels), attack="fgsm", eps=EPS).tensors["robust.right"]
    for row in result.rows:
        if row["sigma"] == 0:
            assert row["clean"] == pytest.approx(float(clean.double().mean()))
            assert row["robust"] == pytest.approx(float(attacked.double().mean()))
        else:
            assert row["clean"] < float(clean.double().mean())  # noise of this size hides the classes


@pytest.mark.slow
def test_the_worst_case_is_at_most_each_attack():
    images, labels = images_and_labels()
    quick = {"steps": 5, "restarts": 1, "eot_samples": (1, 2), "queries": 20, "resubmissions": (1,), "targets": 1}
    classifier = Smoothed(network(), Gaussian(0.05), num_samples=8, seed=0)
    result = smoothed.worst_case(classifier, (images, labels), eps=EPS, selection_votes=2, **quick)
    inputs = images.float() / 255
    for of_network in ("mean network", "smoothed"):
        rows = [row for row in result.rows if row["network"] == of_network]
        assert rows
        worst = rows[-1]
        assert worst["attack"] == "worst case"
        # Votes on the final examples are fresh, so the smoothed classifier's worst case varies by chance.
        chance = 0.1 if of_network == "smoothed" else 0
        assert worst["robust"]["mean"] <= min(row["robust"]["mean"] for row in rows[:-1]) + chance
    mean_rows = [row for row in result.rows if row["network"] == "mean network"]
    assert mean_rows[0]["clean"]["mean"] == pytest.approx(float(plain_right(inputs).double().mean()))
    for name, adversarial in result.tensors.items():
        if name.endswith("adversarial"):
            assert (adversarial - inputs).abs().max() <= EPS + 1e-6


@pytest.mark.slow
def test_checks_use_the_accuracies_of_plain_torch():
    images, labels = images_and_labels()
    result = smoothed.check(network(), (images, labels), eps=EPS, images=COUNT, eot_samples=1)
    inputs, adversarial = result.tensors["images"], result.tensors["adversarial"]
    assert_close(inputs, images.float() / 255)
    assert (adversarial - inputs).abs().max() <= EPS + 1e-6
    assert torch.equal(result.tensors["clean.accuracy"].bool(), plain_right(inputs))
    assert torch.equal(result.tensors["white_box.accuracy"].bool(), plain_right(adversarial))
    assert {row["verdict"] for row in result.rows} <= {"pass", "suspicious", "unclear"}


def test_training_reports_the_accuracy_of_the_network_that_it_returns():
    images, labels = images_and_labels()
    trained = smoothed.train(
        network(),
        separable_images(48, 6),
        validation=(images, labels),
        recipe="fgsm-rs",
        attack="fgsm",
        eps=2 / 255,
        epochs=2,
        batch_size=16,
        lr=0.001,
        augmentation="none",
        injection="none",
    )
    with torch.no_grad():
        right = trained.model(images.float() / 255).argmax(1) == labels
    assert trained.best["validation_clean"] == pytest.approx(float(right.double().mean()))
    evaluated = smoothed.evaluate(trained.model, (images, labels), attack="none")
    assert evaluated.rows[0]["clean"] == pytest.approx(trained.best["validation_clean"])
    changed = zip(trained.model.model.parameters(), trained_weights().values(), strict=False)
    assert any(after.shape != before.shape or not torch.equal(after, before) for after, before in changed)


@pytest.mark.parametrize("weights", ["w.safetensors", "w.pth"])
def test_a_factory_with_weights_gives_the_logits_of_plain_torch(weights, tmp_path, monkeypatch):
    arguments = write_module(tmp_path, f"mine_{weights[2:]}")
    monkeypatch.chdir(tmp_path)
    images, _ = images_and_labels()
    loaded = smoothed.load(
        f"mine_{weights[2:]}:make", model_args=arguments, weights=weights, normalize=(MEAN, STD), outputs="logits"
    )
    with torch.no_grad():
        assert_close(loaded(images.float() / 255), trained_resnet()(normalized(images)))


def test_an_attack_a_vote_and_a_noise_of_the_users():
    """An attack that adds a constant, a vote of squared probabilities, and noise that takes the images alone."""
    images, labels = images_and_labels()

    def brighten(model, inputs, labels):  # noqa: ARG001 - the form of an attack
        return (inputs + EPS).clamp(0, 1)

    def squared(logits):
        return logits.softmax(-1) ** 2

    def hide_rows(inputs):
        """Noise that is no random number: it takes the upper half of each image away."""
        return -inputs * (torch.arange(16) < 8).view(-1, 1)

    classifier = Smoothed(network(), hide_rows, vote=squared, num_samples=3)
    result = smoothed.evaluate(classifier, (images, labels), attack=brighten, eps=EPS)
    inputs = images.float() / 255
    bright = (inputs + EPS).clamp(0, 1)
    base, voted = result.rows
    assert (base["attack"], voted["vote"], voted["noise"]) == ("brighten", "squared", "hide_rows")
    assert base["robust"] == pytest.approx(float(plain_right(bright).double().mean()))
    hidden = [images + hide_rows(images) for images in (inputs, bright)]
    for column, masked in zip(("clean", "robust"), hidden, strict=True):
        assert voted[column] == pytest.approx(float(plain_right(masked).double().mean()))
    with torch.no_grad():
        shares = squared(trained_resnet()(normalized(hidden[0] * 255)))
    assert_close(result.tensors["clean.shares"][1], shares / shares.sum(1, keepdim=True))


def test_a_result_as_a_table_and_as_a_plot(tmp_path):
    classifier = Smoothed(network(), Gaussian(0.1), num_samples=4, seed=0)
    result = smoothed.evaluate(classifier, images_and_labels(), attack="fgsm", eps=EPS, num_samples=(1, 4))
    table = result.to_pandas()
    for column in ("clean", "robust", "vote", "num_samples", "sigma"):
        assert table[column].tolist()[1:] == [row[column] for row in result.rows[1:]]
    low, high = result.rows[1]["robust_interval"]
    assert (table["robust_interval_low"][1], table["robust_interval_high"][1]) == (low, high)
    assert table.to_csv().count("\n") == 4
    result.plot(tmp_path / "plot.pdf")
    assert (tmp_path / "plot.pdf").read_bytes()[:5] == b"%PDF-"
