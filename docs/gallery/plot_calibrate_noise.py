"""
Noise inside your own network
=============================

Any network with convolutions or linear layers can have noise on its weights. Noise of the published strength is made
for training: a network that was trained without it falls to chance. This example finds the strength that a trained
network tolerates.
"""

import warnings

import matplotlib.pyplot as plt
import torch
from torch import nn

import smoothed
from smoothed.data.sample import load_sample
from smoothed.injection import noise_layers

plt.style.use("tableau-colorblind10")

torch.manual_seed(0)
images, labels = next(load_sample().batches(1000))
training, calibration, testing = slice(0, 700), slice(700, 850), slice(850, 1000)

# %%
# A small network, trained without noise
# --------------------------------------
# It stands for yours. Seven hundred images are few, so it is far from good, and much better than chance, which is 10 %.

network = nn.Sequential(
    nn.Conv2d(3, 32, 5, stride=2, padding=2),
    nn.ReLU(),
    nn.Conv2d(32, 64, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(4),
    nn.Flatten(),
    nn.Linear(1024, 10),
)
optimiser = torch.optim.Adam(network.parameters(), 1e-3)
for _ in range(25):
    for batch in torch.randperm(700).split(50):
        loss = nn.functional.cross_entropy(network(images[training][batch]), labels[training][batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
network = network.eval()

# %%
# Add noise and find its strength
# -------------------------------
# ``inject`` changes the network in place. ``calibrate_noise`` scales the noise to the largest strength at which a draw
# loses at most five points of accuracy. It uses images that are neither those of the training nor those of the test.

with warnings.catch_warnings():
    warnings.simplefilter("ignore", smoothed.NoiseStrengthWarning)  # the strength is chosen below
    injection = smoothed.inject(network, weights=smoothed.CNI())
print(injection)
found = smoothed.calibrate_noise(network, images[calibration], labels[calibration], largest_loss=0.05, batch_size=30)
print(found)

# %%
# What stronger noise would do
# ----------------------------
# The accuracy of a single draw and that of a vote over 32 draws on the test images, at several multiples of the
# strength that was found. There is no noise on the images here.


def accuracy(count):
    """Accuracy of a vote over the noise inside the network, in percent."""
    voter = smoothed.Smoothed(network, None, num_samples=count, seed=0)
    shares = voter.tally(images[testing], votes=["prediction"])["prediction"][count]
    return 100 * float((shares.classes() == labels[testing]).float().mean())


factors = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
curves = {1: [], 32: []}
strength = 1.0
for factor in factors:
    for layer in noise_layers(network):
        layer.scale_(factor / strength)
    strength = factor
    for count, curve in curves.items():
        curve.append(accuracy(count))

with smoothed.noiseless(network):
    mean_network = accuracy(1)

figure, axis = plt.subplots(figsize=(7, 3.6))
for (count, curve), marker in zip(curves.items(), "os", strict=True):
    axis.plot(factors, curve, marker=marker, label=f"{count} draw{'s' if count > 1 else ''}")
axis.axhline(mean_network, linestyle=":", color="grey", label="no noise")
axis.set(xlabel="strength, in multiples of the one that was found", ylabel="accuracy in %", xscale="log")
axis.set_xticks(factors, [f"{factor:g}" for factor in factors])
axis.minorticks_off()
axis.set_ylim(0, 60)
axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
figure.tight_layout()

# %%
# A vote recovers what moderate noise costs a single draw. Under much stronger noise both fall to chance.
# ``injection.undo()`` removes the noise. To get more from noise than this, train with it: ``smoothed.train`` does so
# with recipes such as ``cni-w``, and learns the strength.

injection.undo()
