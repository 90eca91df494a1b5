"""
What noise does to the shares of one image
==========================================

The bundled network has noise on its weights, and a draw adds noise to the image as well. This example switches each of
them off, and then makes the noise on the image stronger.
"""

import matplotlib.pyplot as plt
import torch

import smoothed
from smoothed.data.sample import load_sample

plt.style.use("tableau-colorblind10")

sample = load_sample()
model = smoothed.load("resnet20-cni-w")
images, labels = next(sample.first(50).batches(50))
draws = 64


def shares(noise, image):
    """The share of each class among the draws, in percent."""
    classifier = smoothed.Smoothed(model, noise, seed=0)
    return 100 * classifier.tally(image, draws, votes=["prediction"])["prediction"][draws].shares


# %%
# Four classifiers
# ----------------
# ``Smoothed(model, None)`` has no noise on the image, and ``noiseless`` switches the noise inside the network off. With
# both, every draw is the same: that is the mean network. The image is one that the draws do not agree on.

both = shares(smoothed.Gaussian(0.06), images)
number = int(both.max(1).values.argmin())
image = images[number : number + 1]
rows = {"both": both[number], "network noise alone": shares(None, image)[0]}
with smoothed.noiseless(model):
    rows["image noise alone"] = shares(smoothed.Gaussian(0.06), image)[0]
    rows["no noise"] = shares(None, image)[0]

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), width_ratios=[1, 3])
left.imshow(image[0].permute(1, 2, 0), interpolation="nearest")
left.set_title(f"a {sample.classes[int(labels[number])]}")
left.axis("off")
start = torch.zeros(len(rows))
table = torch.stack(list(rows.values()))
for index in table.sum(0).argsort(descending=True)[:6].tolist():
    right.barh(list(rows), table[:, index], left=start, label=sample.classes[index])
    start += table[:, index]
right.set(xlabel=f"share of {draws} draws in %", xlim=(0, 100))
right.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
figure.tight_layout()

# %%
# Stronger noise on the image
# ---------------------------
# With more noise the shares drift towards the classes that the network gives to noisy pictures, whatever they show.
# Which noise is too strong depends on the noise that the network was trained with; a sweep measures it.

sigmas = [0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3]
table = torch.cat([shares(smoothed.Gaussian(sigma), image) for sigma in sigmas])

figure, axis = plt.subplots(figsize=(7, 3.6))
for index in table.amax(0).argsort(descending=True)[:5].tolist():
    axis.plot(sigmas, table[:, index], marker="o", label=sample.classes[index])
axis.set(xlabel="sigma of the noise on the image, pixel units of [0, 1]", ylabel=f"share of {draws} draws in %")
axis.set_ylim(-2, 102)
axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
figure.tight_layout()
