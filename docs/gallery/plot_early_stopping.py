"""
Early stopping: how many draws an image needs
=============================================

Most images are decided long before the last draw. This example counts the draws that three rules take for a vote of at
most 200 draws, and compares the classes with those of all draws.
"""

import matplotlib.pyplot as plt

import smoothed
from smoothed import stopping
from smoothed.data.sample import load_sample

plt.style.use("tableau-colorblind10")

largest = 200
model = smoothed.Fast(smoothed.load("resnet20-cni-w"))
images, labels = next(load_sample().first(50).batches(50))

# %%
# The same draws for every rule
# -----------------------------
# Classifiers with the same seed have the same draws, so each rule sees the same votes and only decides when to stop.


def tally(rule):
    """The tally of the prediction vote, stopped by the rule."""
    classifier = smoothed.Smoothed(model, smoothed.Gaussian(0.06), seed=0)
    return classifier.tally(images, largest, votes=["prediction"], stop=rule)["prediction"][largest]


everything = tally(None)
rules = {"exact": "exact", "true mode": stopping.TrueMode(0.001), "confident": stopping.Confident(0.001)}
tallies = {name: tally(rule) for name, rule in rules.items()}
for name, found in tallies.items():
    changed = int((found.classes() != everything.classes()).sum())
    print(f"{name}: {found.num_samples.float().mean():.0f} draws on average, {changed} of 50 classes changed")

# %%
# Few images need many draws
# --------------------------
# The left panel shows the share of images that are decided after a number of draws. The right panel shows why: an image
# needs many draws if the two most frequent classes are close.

figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.8))
first, second = everything.shares.topk(2).values.T
for (name, found), marker in zip(tallies.items(), "o^s", strict=True):
    draws = found.num_samples.sort().values
    decided = [100 * (number + 1) / len(draws) for number in range(len(draws))]
    left.step([1, *draws.tolist()], [0, *decided], where="post", label=name)
    right.scatter(100 * (first - second), found.num_samples, s=16, marker=marker, label=name)
left.set(xlabel="draws", ylabel="images decided in %", xscale="log", ylim=(0, 102))
right.set(xlabel="margin of all 200 draws in %", ylabel="draws", yscale="log", ylim=(3, 400))
right.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
figure.tight_layout()

# %%
# The exact rule never changes a class. ``Confident`` allows a change with the stated probability, and ``TrueMode``
# looks for the class of infinitely many draws. ``predict`` uses the exact rule unless ``Smoothed(stop=...)`` says
# otherwise.
