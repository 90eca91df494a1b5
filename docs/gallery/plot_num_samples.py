"""
Accuracy and repeatability against the number of draws
======================================================

More draws cost more time. What do they buy? This example counts votes of 1 to 64 draws on clean and on attacked images.
It measures how often they are right, and how often two votes on the same image agree.
"""

import matplotlib.pyplot as plt
import torch

import smoothed
from smoothed import attacks
from smoothed.data.sample import load_sample

plt.style.use("tableau-colorblind10")

model = smoothed.Fast(smoothed.load("resnet20-cni-w"))  # the same function in fewer operations
classifier = smoothed.Smoothed(model, smoothed.Gaussian(0.06), seed=0)
images, labels = next(load_sample().first(80).batches(80))
attacked = attacks.pgd(
    classifier.noisy_classifier, images, labels, eps=8 / 255, generator=torch.Generator().manual_seed(0)
)

# %%
# Two votes on each image
# -----------------------
# Each call of ``tally`` uses new draws. The numbers of draws are all read off the 64 draws of the call.

counts = [1, 2, 4, 8, 16, 32, 64]
right, agree = {}, {}
for name, inputs in (("clean", images), ("PGD-7, 8/255", attacked)):
    first, second = (classifier.tally(inputs, counts, votes=["prediction"])["prediction"] for _ in range(2))
    votes = [(first[count].classes(), second[count].classes()) for count in counts]
    right[name] = [100 * ((one == labels).float() + (two == labels).float()).mean() / 2 for one, two in votes]
    agree[name] = [100 * (one == two).float().mean() for one, two in votes]

figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True)
for axis, values, title in zip(axes, (right, agree), ("right", "the same class in two votes"), strict=True):
    for (name, shares), marker in zip(values.items(), "os", strict=True):
        axis.plot(counts, shares, marker=marker, label=name)
    axis.set(title=title, xlabel="number of draws of a vote", xscale="log", ylim=(0, 102))
    axis.set_xticks(counts, counts)
    axis.minorticks_off()
axes[0].set_ylabel("share of 80 images in %")
axes[1].legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
figure.tight_layout()

# %%
# Accuracy changes little with the number of draws. Repeatability changes much: two single draws often disagree, two
# votes of 64 draws seldom do. That matters where an attacker may submit an image again until a vote is wrong.

for name in right:
    print(f"{name}: right {right[name][0]:.0f} % of single draws, {right[name][-1]:.0f} % of votes of 64 draws;")
    print(f"    two agree on {agree[name][0]:.0f} % and on {agree[name][-1]:.0f} % of the images")
