"""The smallest adversarial perturbations that are known without an attack: of linear models, and of tiny networks."""

import torch
from torch import nn

from smoothed.rng.seeds import seeded


def linear_model(classes, pixels, seed=4):
    """A linear model in double precision, on inputs of any shape with that many values."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes)).double()


def relu_network(seed=15):
    """Two pixels, sixteen ReLUs, three classes: weights large enough for bent borders inside the square."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Flatten(), nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3)).double()
        network[1].weight.data.mul_(4)
        network[1].bias.data.uniform_(-2, 2)
        return network


def linear_norms(model, inputs, labels, norm, *, box=True):
    """The smallest norm of each image that a linear model misclassifies: the nearest of the half-spaces, (N,)."""
    weight, bias = (parameter.detach() for parameter in model[1].parameters())
    nearest = torch.full((len(inputs),), torch.inf, dtype=torch.float64)
    for other in range(len(bias)):
        slope = (weight[other] - weight[labels]).view_as(inputs)
        gap = -(slope * inputs).flatten(1).sum(1) - bias[other] + bias[labels]
        distance = half_space_norms(inputs, slope, gap, norm, box=box)
        nearest = torch.where(labels == other, nearest, torch.minimum(nearest, distance))
    return nearest


def half_space_norms(inputs, slope, gap, norm, *, box=True):
    """min |delta| with slope . delta >= gap, and inputs + delta in [0, 1] if `box`, by sorting or bisection, (N,)."""
    low, high = (-inputs, 1 - inputs) if box else (inputs - torch.inf, inputs + torch.inf)
    if norm == "l0":
        gains = torch.where(slope > 0, slope * high, slope * low).sum(1).flatten(1).sort(1, descending=True).values
        return torch.where(gap > 0, (gains.cumsum(1) < gap[:, None]).sum(1) + 1.0, 0.0)
    direction = slope if norm == "l2" else slope.sign()

    def at(scale):
        return torch.maximum(torch.minimum(scale.view(-1, 1, 1, 1) * direction, high), low)

    short, long = torch.zeros_like(gap), torch.full_like(gap, 1e4)
    for _ in range(200):
        middle = (short + long) / 2
        enough = (slope * at(middle)).flatten(1).sum(1) >= gap
        short, long = torch.where(enough, short, middle), torch.where(enough, middle, long)
    delta = at(long).flatten(1)
    return delta.norm(dim=1) if norm == "l2" else delta.abs().amax(1)


def grid_norms(network, inputs, wanted, norm, side=801):
    """The smallest norm on a grid of the square that reaches a prediction for which `wanted` holds, (N,).

    Args:
        network: on images (N, 1, 1, 2).
        inputs: such images.
        wanted: from predictions (G,) to which of them succeed, (N, G).
        norm: `linf` or `l2`; `l0` looks along the two lines through each input.
        side: of the grid, whose points lie 1 / (side - 1) apart.
    """
    axis = torch.linspace(0, 1, side, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis).view(-1, 1, 1, 2)
    with torch.no_grad():
        success = wanted(network(points).argmax(1))
    delta = (points[None] - inputs[:, None]).flatten(2)
    sizes = delta.norm(dim=2) if norm == "l2" else delta.abs().amax(2)
    return sizes.masked_fill(~success, torch.inf).amin(1)


def random_images(count, *shape, low=0.0, high=1.0, seed=0):
    """Images in [low, high], in double precision."""
    return low + (high - low) * torch.rand(count, *shape, generator=seeded(seed), dtype=torch.float64)
