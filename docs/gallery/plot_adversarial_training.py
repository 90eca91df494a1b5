"""
A tiny adversarial training
===========================

``smoothed.train`` trains a network of your own with a recipe. This example trains the same small network twice, on
clean and on adversarial images, and attacks both.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import smoothed
from smoothed.data.sample import load_sample

plt.style.use("tableau-colorblind10")

images, labels = next(load_sample().batches(1000))
training, testing = (images[:850], labels[:850]), (images[850:], labels[850:])


def network():
    """A small convolutional network from images in [0, 1] to logits."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, stride=2, padding=2),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(1024, 10),
    )


# %%
# Two recipes
# -----------
# ``natural`` minimises the loss on clean images, ``at-full`` the loss on images that PGD attacks with a radius of
# 8/255. All other settings are the same. A tenth of the training images is held out, and the weights of the epoch with
# the best robust accuracy on them are kept.

settings = {"epochs": 12, "batch_size": 50, "lr": 0.05, "schedule": "onecycle", "weight_decay": 5e-4, "seed": 0}
trained = {name: smoothed.train(network(), training, recipe=name, **settings) for name in ("natural", "at-full")}
for name, run in trained.items():
    print(f"{name}: {run}")

# %%
# The epochs
# ----------
# ``metrics`` has the accuracy on held-out images after each epoch, clean and under PGD-7. Natural training loses robust
# accuracy as it goes on, so that the kept epoch is an early one.

figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True)
for axis, (name, run) in zip(axes, trained.items(), strict=True):
    epochs = [row["epoch"] for row in run.metrics]
    for key, label, marker in (("validation_clean", "clean", "o"), ("validation_robust", "PGD-7", "s")):
        axis.plot(epochs, [100 * row[key] for row in run.metrics], marker=marker, label=label)
    axis.set(title=name, xlabel="epoch", ylim=(0, 60))
axes[0].set_ylabel("accuracy on held-out images in %")
axes[1].legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
figure.tight_layout()

# %%
# Attack both on test images
# --------------------------
# ``evaluate`` takes the trained network as it is. Votes need noise: here the first row of the table is the network
# alone, the second a vote over noisy copies of the image.

for name, run in trained.items():
    classifier = smoothed.Smoothed(run.model, smoothed.Gaussian(0.06), num_samples=16, seed=0)
    print(smoothed.evaluate(classifier, testing, attack="pgd", eps=8 / 255, name=name))
    print()

# %%
# With 765 training images and so small a network, neither is useful. The recipes of the paper, such as ``cni-w``, train
# a ResNet-20 on 45,000 images.
