"""
A vote, draw by draw
====================

A vote asks the network many times about the same image, each time with fresh noise, and counts the answers. This
example looks at the draws of one image one after the other.
"""

import matplotlib.pyplot as plt
import torch

import smoothed
from smoothed.data.sample import load_sample

plt.style.use("tableau-colorblind10")

sample = load_sample()
classifier = smoothed.Smoothed(smoothed.load("resnet20-cni-w"), smoothed.Gaussian(0.06), seed=0)
images, labels = next(sample.first(50).batches(50))

# %%
# Find an image that is hard to decide
# ------------------------------------
# The margin of a vote is the share of the winner minus that of the runner-up. ``tally`` counts 32 draws of each image,
# and the image with the smallest margin is the most interesting one.

shares = classifier.tally(images, 32, votes=["prediction"])["prediction"][32].shares
first, second = shares.topk(2).values.T
number = int((first - second).argmin())
image, label = images[number : number + 1], int(labels[number])
print(f"image {number}, a {sample.classes[label]}: margin {first[number] - second[number]:.2f}")

# %%
# Noisy copies
# ------------
# ``noisy_classifier`` is one draw: it adds noise to the image and uses fresh noise inside the network. The pictures
# show the noise on the image; the class above each is the answer of one draw. A standard deviation of 0.06 is about 15
# steps of an 8-bit image.

generator = torch.Generator().manual_seed(1)
torch.manual_seed(1)  # outside of a vote, noise inside the network comes from torch's generator
noise = classifier.noisy_classifier.noise
figure, axes = plt.subplots(2, 4, figsize=(7, 4.2))
for draw, axis in enumerate(axes.flat):
    noisy = image if draw == 0 else image + noise(image, generator)
    with torch.no_grad():
        answer = sample.classes[int(classifier.model(noisy).argmax())]
    axis.imshow(noisy[0].permute(1, 2, 0).clamp(0, 1), interpolation="nearest")
    axis.set_title("without noise" if draw == 0 else answer, fontsize=9)
    axis.axis("off")
figure.tight_layout()

# %%
# The count
# ---------
# One call gives the tally after every number of draws, all from the same draws. The share of each class settles slowly:
# its standard error after M draws is at most 0.5 / sqrt(M).

largest = 96
tallies = classifier.tally(image, range(1, largest + 1), votes=["prediction"])["prediction"]
counts = torch.stack([tallies[count].scores[0] for count in range(1, largest + 1)])  # (draws, classes)
draws = torch.arange(1, largest + 1)

figure, axis = plt.subplots(figsize=(7, 3.6))
for index in counts[-1].argsort(descending=True)[:4].tolist():
    axis.plot(draws, 100 * counts[:, index] / draws, label=sample.classes[index])
axis.set(xlabel="number of draws", ylabel="share of the draws in %", xscale="log", ylim=(-2, 102))
axis.set_xticks([1, 2, 5, 10, 20, 50, 96], [1, 2, 5, 10, 20, 50, 96])
axis.minorticks_off()
axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
figure.tight_layout()

# %%
# The leader may change several times before the count settles. ``predict`` returns the winner after ``num_samples``
# draws.

leaders = counts.argmax(1)
changes = int((leaders[1:] != leaders[:-1]).sum())
print(f"{changes} changes of the leader; after {largest} draws: {sample.classes[int(leaders[-1])]}")
