"""An honest network, and a way to give it a flaw: what the gradient-masking checks must tell apart."""

import torch
from torch import nn

from smoothed.rng.seeds import seeded

EPS = 0.1


class Few(nn.Module):
    """Three classes, linear in six pixels: few enough that queries and corners of the ball find what there is."""

    def __init__(self):
        super().__init__()
        weight = torch.zeros(3, 192)
        weight[:, :6] = torch.randn(3, 6, generator=seeded(1))
        self.weight = nn.Parameter(10 * weight)

    def forward(self, inputs):
        return (inputs - 0.5).flatten(1) @ self.weight.T


class Backward(nn.Module):
    """`network` with a backward pass of its own: `change` is put between the true gradient and the attacker."""

    def __init__(self, network, change):
        super().__init__()
        self.network = network
        self.change = change

    def forward(self, inputs):
        inputs = inputs.clone()
        if inputs.requires_grad:
            inputs.register_hook(lambda gradient: self.change(gradient, inputs.detach()))
        return self.network(inputs)
