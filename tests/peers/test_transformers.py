"""Hugging Face's image classifiers: outputs are objects, classes have names, and pixels are normalised outside."""

from functools import cache

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

import smoothed
from real.calls import CALLS, check_call, check_clean_accuracy, untouched
from real.foreign import CLASSES, MEAN, STD, Case, normalized, separable_images, write_folder
from smoothed import ArgumentError


def vit(names=CLASSES, dtype=torch.float32):
    """A tiny ViT with random weights, from a local configuration, in eval mode."""
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=4,
        initializer_range=0.2,
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ViTForImageClassification(config).eval().to(dtype)


class Faces:
    """A data set as Hugging Face's `datasets` gives it, with columns, and names of the classes."""

    def __init__(self, images, labels):
        self.rows = [{"img": image, "label": int(label)} for image, label in zip(images, labels, strict=True)]
        self.features = {"img": object(), "label": type("ClassLabel", (), {"names": list(CLASSES)})()}
        self.column_names = ["img", "label"]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        return [row[key] for row in self.rows] if isinstance(key, str) else self.rows[key]


@cache
def case():
    images, labels = separable_images(10, 3)
    network = vit()
    return Case(
        {"model": vit(), "normalize": (MEAN, STD)},
        Faces(images, labels),
        lambda pixels: network(pixel_values=normalized(pixels)).logits,
        images,
        labels,
    )


@pytest.mark.parametrize("call", CALLS)
def test_every_call(call, tmp_path):
    result = check_call(call, case(), tmp_path / "result.json", classes_checked="names")
    assert result.model["classes"] == result.data["classes"] == list(CLASSES)
    assert "only their number was compared" not in str(result)


def test_the_network_is_right_where_it_is_in_plain_transformers():
    check_clean_accuracy(case())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision(dtype):
    given, network = case(), vit(dtype=dtype)
    adapted = smoothed.load(network, normalize=(MEAN, STD))
    with torch.no_grad():
        expected = network(pixel_values=normalized(given.images).to(dtype)).logits.float()
        assert torch.equal(adapted(given.images.float() / 255), expected)
    row = smoothed.evaluate(adapted, given.data, attack="fgsm", eps=2 / 255).rows[0]
    assert row["clean"] == pytest.approx(float((expected.argmax(1) == given.labels).double().mean()))


def test_training_gives_a_new_network():
    given = case()
    check_untouched = untouched(given.load["model"])
    settings = {"epochs": 1, "batch_size": 4, "augmentation": "none", "injection": "none", "schedule": "steps"}
    trained = smoothed.train(smoothed.load(**given.load), given.data, recipe="fgsm-rs", eps=2 / 255, **settings)
    check_untouched()
    with torch.no_grad():
        right = trained.model(given.images.float() / 255).argmax(1) == given.labels
    evaluated = smoothed.evaluate(trained.model, given.data, attack="none")
    assert torch.equal(evaluated.tensors["clean.right"][0, 0].bool(), right)


def test_classes_of_other_data_are_refused(tmp_path):
    images, labels = separable_images(4, 3)
    folder = f"{write_folder(tmp_path / 'parts', images, labels)}@16"
    network = smoothed.load(**case().load)
    assert smoothed.evaluate(network, folder, attack="none").data["classes_checked"] == "names"
    for names, message in [
        (("gear", "bolt"), "model: expected the classes of .* in the same order, got another order"),
        (("nut", "gear"), "model: expected the classes of .*, got class nut in place of bolt"),
        (("bolt", "gear", "nut"), "model: expected 2 outputs, one for each class of .*, got 3"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            smoothed.evaluate(smoothed.load(vit(names), normalize=(MEAN, STD)), folder)
