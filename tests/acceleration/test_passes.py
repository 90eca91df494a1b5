"""How smoothed inference asks a network about its passes."""

import torch
from torch import nn

from smoothed import Fast, NoisyClassifier, load
from smoothed.acceleration.passes import Passes, PlainPasses, passes_of


def test_a_faster_network_answers_for_itself_and_any_other_is_plain():
    fast = Fast(load("resnet20-cni-w"))
    assert passes_of(fast) is fast
    for model in (nn.Flatten(), lambda inputs: inputs):
        plain = passes_of(model)
        assert isinstance(plain, PlainPasses)
        assert isinstance(plain, Passes)
        assert plain.draws_per_pass(torch.rand(1, 3, 4, 4), 256) == 1


def test_images_are_in_the_memory_format_of_the_network():
    images = torch.rand(2, 3, 4, 4)
    fast = Fast(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()).eval())
    assert NoisyClassifier(fast).in_memory_format(images).is_contiguous(memory_format=torch.channels_last)
    assert NoisyClassifier(nn.Flatten()).in_memory_format(images) is images
