"""Classifiers so small that the best attack on them within a ball is known, and how good it is."""

import torch

from smoothed.attacks.losses import margin
from smoothed.rng.seeds import seeded


def length(delta, norm):
    """The norm of each perturbation, (N,)."""
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def assert_within(attacked, inputs, eps, norm):
    assert attacked.shape == inputs.shape
    assert attacked.dtype == inputs.dtype
    assert not attacked.requires_grad
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert (length(attacked - inputs, norm) <= eps + 1e-6).all()


class Linear:
    """f(x) = W x + b on images (N, 3, 2, 2), seeded, in float64."""

    def __init__(self, classes, seed=4):
        generator = seeded(seed)
        self.weight = torch.randn(classes, 12, generator=generator, dtype=torch.float64)
        self.bias = 0.1 * torch.randn(classes, generator=generator, dtype=torch.float64)

    def __call__(self, images):
        return images.flatten(1) @ self.weight.T + self.bias

    def furthest(self, inputs, labels, targets, eps, norm):
        """The images (N, 3, 2, 2) in the ball and [0, 1] that raise the target's logit most against the label's.

        In l2 these are clip(x + s d) along the slope d, with the s that makes the move eps long (Karush, Kuhn, Tucker),
        or the corner of [0, 1] where even that is nearer.
        """
        slope = (self.weight[targets] - self.weight[labels]).view(-1, 3, 2, 2)
        if norm == "linf":
            return (inputs + eps * slope.sign()).clamp(0, 1)
        low, high = torch.zeros(len(inputs), 1, 1, 1).double(), torch.full((len(inputs), 1, 1, 1), 1e3).double()
        for _ in range(80):
            middle = (low + high) / 2
            short = length((inputs + middle * slope).clamp(0, 1) - inputs, norm).view(-1, 1, 1, 1) < eps
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        return (inputs + low * slope).clamp(0, 1)

    def highest_margin(self, inputs, labels, eps, norm):
        """The highest margin in the ball and [0, 1], (N,): that of the furthest images, for the best target."""
        classes = len(self.weight)
        others = [(labels + shift) % classes for shift in range(1, classes)]
        ends = [self.furthest(inputs, labels, targets, eps, norm) for targets in others]
        return torch.stack([margin(self(end), labels) for end in ends]).amax(0)


class NoisyLinear(Linear):
    """`Linear`, and normals of deviation `noise` added to W afresh in each call: its mean is `Linear`."""

    def __init__(self, classes, noise, seed=0):
        super().__init__(classes)
        self.noise, self.generator = noise, seeded(seed)

    def __call__(self, images):
        noise = torch.randn(self.weight.shape, generator=self.generator, dtype=torch.float64)
        return super().__call__(images) + self.noise * (images.flatten(1) @ noise.T)


def share_of_optimum(linear, attacked, inputs, labels, eps, norm):
    """How much of the highest gain in margin each image got, (N,): 1 is the optimum."""
    highest, clean = linear.highest_margin(inputs, labels, eps, norm), margin(linear(inputs), labels)
    return (margin(linear(attacked), labels) - clean) / (highest - clean)


class ReLUNetwork:
    """W relu(V x + a) + b on images (N, 1, 1, 3): two layers, eight hidden units, four classes; seeded, in float64."""

    def __init__(self, seed=0):
        generator = seeded(seed)
        self.first, self.first_bias, self.second, self.second_bias = (
            torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((8, 3), (8,), (4, 8), (4,))
        )
        self.first_bias *= 0.3

    def __call__(self, images):
        hidden = images.flatten(1) @ self.first.T + self.first_bias
        return hidden.relu() @ self.second.T + self.second_bias

    def highest(self, inputs, labels, eps, norm, loss=margin):
        """The highest loss, (N,), on a grid of 31^3 over the ball, its surface included, cut to [0, 1]."""
        axis = torch.linspace(-eps, eps, 31, dtype=torch.float64)
        cube = torch.cartesian_prod(axis, axis, axis)
        if norm == "l2":  # what sticks out of the sphere is drawn onto it
            cube *= (eps / cube.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp_max(1)
        found = []
        for image, label in zip(inputs, labels, strict=True):
            images = (image + cube.view(-1, 1, 1, 3)).clamp(0, 1)
            found.append(loss(self(images), label.expand(len(images))).amax())
        return torch.stack(found)


def problem_of(classifier, count, size, *, low=0.0, high=1.0, seed=0):
    """Images (N, ...) in [low, high] that `classifier` gets right by definition: its own answers are the labels."""
    inputs = torch.rand(count, *size, generator=seeded(seed), dtype=torch.float64) * (high - low) + low
    return inputs, classifier(inputs).argmax(1)
