"""What a run is worth on held-out images, with a network whose accuracies are known."""

import pytest
import torch
from torch import nn

from smoothed.data.imageset import ImageSet
from smoothed.training.validation import validate

# How far, in 255ths, each image's pixels are on the right side of the threshold; four images are on the wrong one.
MARGINS = [30, -3, 12, 5, 20, -40, 9, 7, 30, 1, -9, 16, 2, 40, -2, 6]


class Threshold(nn.Module):
    """Class 1 where the mean pixel is above 127.5: a radius of r moves every pixel by r."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 8)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 8, 8) / 192)
            self.layer.bias.copy_(torch.tensor([0.5, -0.5]))

    def forward(self, inputs):
        return self.layer(inputs).flatten(1)


@pytest.fixture
def held_out():
    """Constant images, those of class 1 brighter than the threshold and those of class 0 darker, by their margins."""
    labels = torch.arange(len(MARGINS)) % 2
    values = [127.5 + (1 if label else -1) * (margin + 0.5) for margin, label in zip(MARGINS, labels, strict=True)]
    images = torch.tensor(values).round().to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone()
    return ImageSet("held out", images, labels, ("dark", "bright"))


@pytest.fixture
def run_of(held_out, make_run):
    """A function of settings that gives a run which has not begun."""

    def make(**settings):
        return make_run(held_out, Threshold(), architecture="custom", injection="none", **settings)

    return make


def counted(margins, radius):
    """The share of margins (in 255ths, half of one off) beyond the radius."""
    return sum(margin + 0.5 > radius for margin in margins) / len(margins)


@pytest.mark.parametrize("eps", [0, 4, 8, 14])
def test_accuracies_are_those_counted_by_hand(run_of, held_out, eps):
    """PGD-7 with steps of eps / 4 moves each pixel by 3/4 eps at least, wherever it started, and by eps at most."""
    clean, robust = validate(run_of(eps=eps / 255), held_out)
    assert clean == counted(MARGINS, 0)
    assert counted(MARGINS, eps) <= robust <= counted(MARGINS, 0.75 * eps)


def test_only_the_first_images_are_attacked(run_of, held_out):
    clean, robust = validate(run_of(eps=0.0, validation_attack_images=5), held_out)
    assert clean == counted(MARGINS, 0) == 0.75
    assert robust == counted(MARGINS[:5], 0) == 0.8


def test_the_attack_has_the_configurations_norm(run_of, held_out):
    """A length of 8/255 over 192 pixels is 0.58/255 each: an image 1.5/255 from the threshold withstands it."""
    _, robust = validate(run_of(eps=8 / 255, norm="l2"), held_out)
    assert robust == counted(MARGINS, 8 / 192**0.5)
    assert robust > counted(MARGINS, 0.75 * 8)


def test_the_average_is_what_is_measured(run_of, held_out):
    """And it is measured in eval mode, twice alike, and left in its mode."""
    run = run_of(average=0.5, eps=4 / 255)
    with torch.no_grad():
        run.average.module.layer.weight.neg_()
        run.average.module.layer.bias.neg_()
    run.model.train()
    clean, robust = validate(run, held_out)
    assert clean == pytest.approx(1 - counted(MARGINS, 0))
    assert validate(run, held_out) == (clean, robust)
    assert run.model.training
