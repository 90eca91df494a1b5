"""
Accuracy against sigma
======================

How strong should the noise on the image be? ``smoothed.sweep`` measures clean and attacked accuracy at several standard
deviations, for several votes and numbers of draws, and says which of them may be the best.
"""

import smoothed

model = smoothed.load("resnet20-cni-w")
result = smoothed.sweep(
    model,
    "sample",
    split="test",  # choose sigma on validation images; this example has only the bundled test images
    images=80,
    sigmas=(0.0, 0.03, 0.06, 0.09, 0.12),
    num_samples=(1, 4, 16),
    votes=("prediction", "soft"),
    attack="pgd",
    steps=5,
)

# %%
# The table shows the vote of the best cell. Each sigma is attacked once and drawn once; all votes and all numbers of
# draws are read off these draws.

print(result)

# %%
# The sentences are the important part: eighty images cannot tell most of these settings apart. ``may_be_best`` is the
# set of sigmas that contains the best one with 95 % confidence.

for peak in result.summary["peaks"]:
    if peak["num_samples"] == 16:
        print(peak["vote"], "vote: best sigma", peak["sigma"], "of", peak["may_be_best"])

# %%
# The plot shows every vote, with 95 % intervals over images, and the whole plane of sigma and the number of draws.

figure = result.plot()
