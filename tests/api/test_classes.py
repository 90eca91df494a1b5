"""Classes of a model and of the data that do not fit, and outputs that are no logits."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import known
import smoothed
from smoothed.data.imageset import ImageSet
from smoothed.errors import ArgumentError

NAMES = ("bright", "dark")


def network(names=None, config=None, outputs=2):
    """`known.Threshold` that says which classes it has; it may have more outputs."""

    class Named(known.Threshold):
        def forward(self, inputs):
            logits = super().forward(inputs)
            return torch.cat([logits, logits.new_full((len(logits), outputs - 2), -9.0)], 1)

    model = Named()
    if names:
        model.checkpoint_header = {"classes": list(names)}
    if config:
        model.config = SimpleNamespace(id2label=config)
    return model


def data(names=NAMES):
    images = known.pixels(40, 80, 200, 240)
    return replace(images, classes=tuple(names), labels=torch.tensor([1, 1, 0, 0]))


@pytest.mark.parametrize(
    ("model", "checked"),
    [
        (network(NAMES), "names"),
        (network(config={1: "dark", 0: "bright"}), "names"),
        (network(config={0: "LABEL_0", 1: "LABEL_1"}), "number"),  # the names of a configuration that states none
        (network(), "number"),
    ],
)
def test_equal_classes_are_accepted_and_unknown_ones_are_said(model, checked):
    result = smoothed.evaluate(model, data(), attack="none")
    assert result.data["classes_checked"] == checked
    assert result.model["classes"] == (list(NAMES) if checked == "names" else None)
    assert ("so only their number was compared" in " ".join(str(result).split())) == (checked == "number")
    assert result[0]["clean"] == 1


@pytest.mark.parametrize(
    ("model", "names", "message"),
    [
        (network(NAMES), ("dark", "bright"), "model: expected the classes of pixels in the same order, got another"),
        (network(NAMES), ("bright", "grey"), "model: expected the classes of pixels, got class dark in place of grey"),
        (network(config={0: "cat", 1: "dark"}), NAMES, "model: expected the classes of pixels, got class cat in place"),
        (network(), ("a", "b", "c"), "model: expected 3 outputs, one for each class of pixels, got 2; use the"),
        (network(outputs=5), NAMES, "model: expected 2 outputs, one for each class of pixels, got 5"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", ["evaluate", "check", "attack", "worst_case"])
def test_other_classes_are_refused(model, names, message, function):
    with pytest.raises(ArgumentError, match=message):
        getattr(smoothed, function)(model, data(names))


def test_labels_that_the_model_has_no_class_for_are_refused():
    images = torch.rand(4, 1, 2, 2)
    for labels, message in (
        ([0, 1, 2, 0], r"data: expected labels in 0..1, the classes of the model, got the label 2"),
        ([0, 1, -1, 0], r"labels.*-1"),
    ):
        with pytest.raises(ArgumentError, match=message):
            smoothed.evaluate(network(), (images, torch.tensor(labels)), attack="none")
    # A model with more classes than the labels of arrays is no mistake: the last classes may have no image.
    result = smoothed.evaluate(network(outputs=5), (images, torch.tensor([0, 1, 1, 0])), attack="none")
    assert (result.data["classes_checked"], result.model["outputs"]) == ("number", 5)
    said = " ".join(str(result).split())
    assert "The model has 5 outputs, and the labels go from 0 to 1: make sure" in said
    assert "only their number" not in said


def test_probabilities_are_refused_with_the_way_out():
    def probabilities(inputs):
        return known.Threshold()(inputs).softmax(1)

    images = (torch.linspace(0.1, 0.9, 12).view(-1, 1, 1, 1), torch.arange(12) % 2)
    message = r"model: expected logits, got probabilities, rows in \[0, 1\] that sum to 1; load it .*outputs=\"probabil"
    for classifier in (probabilities, smoothed.Smoothed(probabilities, smoothed.Gaussian(0.1))):
        with pytest.raises(ArgumentError, match=message):
            smoothed.evaluate(classifier, images)
    adapted = smoothed.load(probabilities, outputs="probabilities")
    found, expected = (
        smoothed.evaluate(smoothed.Smoothed(model, smoothed.Gaussian(0.1), vote="soft", num_samples=4), images, seed=3)
        for model in (adapted, known.Threshold())
    )
    torch.testing.assert_close(found.tensors["clean.shares"], expected.tensors["clean.shares"])
    assert found.rows[1]["clean"] == expected.rows[1]["clean"]


def test_a_network_that_fails_on_the_images_is_named():
    images = ImageSet("wide", torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), NAMES)
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    with pytest.raises(ArgumentError, match=r"model: expected a network for images of shape \(3, 4, 4\), got one that"):
        smoothed.evaluate(linear, images)
