"""
Certified radii
===============

A certificate says that no perturbation within an L2 radius changes the class of the vote. This example certifies the
same images with weaker and stronger noise.
"""

import matplotlib.pyplot as plt
from scipy.special import ndtri

import smoothed

plt.style.use("tableau-colorblind10")

sigmas, alpha, draws = (0.06, 0.12, 0.25), 0.001, 300
noises = [smoothed.Gaussian(sigma) for sigma in sigmas]
result = smoothed.certify(
    smoothed.load("resnet20-cni-w"),
    "sample",
    images=20,
    noises=noises,
    radii=(0.0, 0.05, 0.1, 0.2),
    num_samples=draws,
    selection_samples=50,
    alpha=alpha,
)
print(result)

# %%
# Every radius
# ------------
# The result holds the certified class and the radius of each image, so the whole curve can be drawn. It ends at the
# largest radius that this number of draws can certify, even if all of them agree; the dotted lines show it.

radii, classes, labels = (result.tensors[name] for name in ("radius", "certified_class", "labels"))
figure, axis = plt.subplots(figsize=(7, 3.8))
for number, sigma in enumerate(sigmas):
    right = radii[number][classes[number] == labels].sort().values
    left_over = [100 * (len(right) - index) / len(labels) for index in range(len(right))]
    (line,) = axis.step([0, *right.tolist()], [100 * len(right) / len(labels), *left_over], label=f"sigma {sigma}")
    axis.axvline(sigma * ndtri(alpha ** (1 / draws)), linestyle=":", color=line.get_color())
axis.set(xlabel="L2 radius, pixel units of [0, 1]", ylabel="certified accuracy in %", ylim=(0, 100))
axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
figure.tight_layout()

# %%
# Stronger noise reaches further, on fewer images: the network was not trained with it. More draws move the dotted lines
# to the right, slowly.
