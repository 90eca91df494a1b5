"""
Your own vote
=============

A vote is a function from the logits of draws to scores. This example writes two of them, compares them with those of
the package, and lets a stopping rule use one.
"""

import matplotlib.pyplot as plt
import torch

import smoothed
from smoothed import attacks, votes
from smoothed.data.sample import load_sample

plt.style.use("tableau-colorblind10")

model = smoothed.Fast(smoothed.load("resnet20-cni-w"))
classifier = smoothed.Smoothed(model, smoothed.Gaussian(0.06), seed=0)
images, labels = next(load_sample().first(80).batches(80))
torch.manual_seed(0)  # the noise that attacks see comes from torch's generator
attacked = attacks.pgd(classifier.noisy_classifier, images, labels, eps=8 / 255)


# %%
# Two votes
# ---------
# The first is the Borda count, which scores each class by the number of classes below it. The second counts a draw only
# if it is sure, that is, if its most probable class has a probability of at least 1/2.


def borda(logits):
    """K - 1 for the best class, K - 2 for the next, and so on."""
    return logits.argsort(-1).argsort(-1).float()


def sure(logits):
    """1 for the best class if its probability is at least 1/2."""
    probabilities = logits.softmax(-1)
    best = torch.nn.functional.one_hot(probabilities.argmax(-1), logits.shape[-1])
    return best * (probabilities.amax(-1, keepdim=True) >= 0.5)


# %%
# The same draws for all votes
# ----------------------------

counts = [1, 4, 16, 48]
kinds = {"prediction": "prediction", "soft": "soft", "top two": votes.top_two(0.5), "Borda": borda, "sure": sure}
right = {}
for name, inputs in (("clean", images), ("PGD-7, 8/255", attacked)):
    tallies = classifier.tally(inputs, counts, votes=kinds)
    right[name] = {
        kind: [100 * float((tallies[kind][count].classes() == labels).float().mean()) for count in counts]
        for kind in kinds
    }

figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.6), sharey=True)
for axis, (name, curves) in zip(axes, right.items(), strict=True):
    for (kind, shares), style in zip(curves.items(), ("o-", "s--", "^-.", "D:", "v-"), strict=True):
        axis.plot(counts, shares, style, label=kind)
    axis.set(title=name, xlabel="number of draws", xscale="log", ylim=(0, 100))
    axis.set_xticks(counts, counts)
    axis.minorticks_off()
axes[0].set_ylabel("accuracy on 80 images in %")
axes[1].legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
figure.tight_layout()

# %%
# Eighty images cannot tell the first four votes apart. ``sure`` loses: where no draw is sure, all scores are 0, and
# ties go to the class with the lowest index. More draws leave fewer such images.
#
# Stopping early
# --------------
# A rule has to know how much one draw can change the difference between two classes. For the Borda count that is K - 1,
# for ``sure`` it is 1. ``with_bound`` states it.

bounded = votes.with_bound(sure, spread=1.0)
quick = smoothed.Smoothed(model, smoothed.Gaussian(0.06), vote=bounded, num_samples=48, seed=1)
found = quick.tally(images, votes={"sure": bounded}, stop="exact")["sure"][48]
print(f"{found.num_samples.float().mean():.0f} of 48 draws on average, and the classes of all 48 draws")
