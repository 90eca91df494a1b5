"""
PGD against EPGD on a vote
==========================

PGD on a random network follows the gradient of one draw at each step. EPGD averages several draws. This example shows
why that matters: the gradients of two draws of the same image have opposite signs at more than a quarter of the pixels.
"""

import matplotlib.pyplot as plt
import torch

import smoothed
from smoothed import attacks
from smoothed.data.sample import load_sample

plt.style.use("tableau-colorblind10")

model = smoothed.Fast(smoothed.load("resnet20-cni-w"))  # the same function in fewer operations
classifier = smoothed.Smoothed(model, smoothed.Gaussian(0.06), num_samples=32, seed=0)
noisy = classifier.noisy_classifier
images, labels = next(load_sample().first(50).batches(50))
torch.manual_seed(0)  # the noise that attacks see comes from torch's generator
draws = [1, 4, 16]

# %%
# How far the sign of a gradient is noise
# ---------------------------------------
# PGD uses the sign of the gradient alone. Two gradients of the same images, each averaged over E draws, agree on the
# sign of some pixels. Half of them agree by chance.


def gradient_sign(count):
    """The sign of the gradient of the loss, averaged over the draws."""
    inputs = images[:20].clone().requires_grad_()
    loss = attacks.expected_loss(count)(noisy, inputs, labels[:20]).sum()
    return torch.autograd.grad(loss, inputs)[0].sign()


agreement = [float((gradient_sign(count) == gradient_sign(count)).float().mean()) for count in draws]
for count, share in zip(draws, agreement, strict=True):
    print(f"{count:2} draws: the signs of two gradients agree on {100 * share:.0f} % of the pixels")

# %%
# The attacks
# -----------
# ``expected_probabilities`` is the objective of EPGD, equation 25 of the paper. The attacked images are judged by fresh
# draws, which the attacks have not seen.

right = {"vote of 32 draws": [], "one draw": []}
for count in draws:
    objective = attacks.expected_probabilities(count)
    attacked = attacks.pgd(noisy, images, labels, eps=8 / 255, steps=7, objective=objective)
    tallies = classifier.tally(attacked, [1, 32], votes=["prediction"])["prediction"]
    right["one draw"].append(float((tallies[1].classes() == labels).float().mean()))
    right["vote of 32 draws"].append(float((tallies[32].classes() == labels).float().mean()))

figure, (left, axis) = plt.subplots(1, 2, figsize=(8.5, 3.6))
left.plot(draws, [100 * share for share in agreement], marker="o", color="black")
left.axhline(50, linestyle=":", color="grey")
left.annotate("by chance", (draws[-1], 50), xytext=(0, 4), textcoords="offset points", ha="right", color="grey")
left.set(title="two gradients", ylabel="pixels with the same sign in %", ylim=(45, 100))
for (name, shares), marker in zip(right.items(), "os", strict=True):
    axis.plot(draws, [100 * share for share in shares], marker=marker, label=name)
axis.set(title="under the attack", ylabel="accuracy on 50 images in %", ylim=(0, 100))
axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
for panel in (left, axis):
    panel.set(xlabel="draws averaged for each gradient", xscale="log")
    panel.set_xticks(draws, draws)
    panel.minorticks_off()
figure.tight_layout()

# %%
# Every draw more costs one more gradient for each step. ``smoothed.worst_case`` raises the number until the accuracy no
# longer falls, and uses several attacks. Fifty images are few: the 95 % interval of each accuracy is about 13 points
# wide to either side.
