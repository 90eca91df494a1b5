"""Base training and the baselines of the paper: ResNet-20, 400 epochs, SGD with two steps down (FACTS, training)."""

from smoothed.training.recipes.recipe import Recipe

NATURAL = Recipe(
    "natural",
    "He et al., 2016",
    "cross-entropy on clean images",
    {"injection": "none", "attack": "none", "adversarial_weight": 0.0},
)
AT = NATURAL.but(
    "at",
    "Madry et al., 2018; the paper, eq. 6",
    "half the loss under PGD-7",
    attack="pgd",
    adversarial_weight=0.5,
)
AT_FULL = AT.but("at-full", "Madry et al., 2018", "all of the loss under PGD-7", adversarial_weight=1.0)
TRADES_6 = AT.but(
    "trades-6",
    "Zhang et al., 2019",
    "clean loss plus 6 times the divergence, which PGD-10 raises",
    loss="trades",
    attack="kl",
    attack_steps=10,
    beta=6.0,
)
TRADES_1 = TRADES_6.but("trades-1", "Zhang et al., 2019", "the divergence counts once", beta=1.0)
MART = AT.but(
    "mart",
    "Wang et al., 2020",
    "boosted loss under PGD-10, divergence weighted by misclassification",
    loss="mart",
    attack_steps=10,
    beta=5.0,
)
PNI_W = AT.but("pni-w", "He, Rakin and Fan, 2019", "learned noise on each weight", injection="pni-w")
PNI_W_CHANNEL = PNI_W.but("pni-w-channel", PNI_W.source, "one strength a channel", injection="pni-w-channel")
PNI_W_LAYER = PNI_W.but("pni-w-layer", PNI_W.source, "one strength a layer", injection="pni-w-layer")
PNI_A = AT.but("pni-a", PNI_W.source, "learned noise on what enters each layer", injection="pni-a-a")
CNI_W = AT.but("cni-w", "Zheltonozhskii et al., 2020", "learned correlated noise on the weights", injection="cni-w")
CNI_A = CNI_W.but("cni-a", CNI_W.source, "the same on what enters each layer", injection="cni-a")
CNI_W_PNI_A = CNI_W.but("cni-w+pni-a", CNI_W.source, "CNI-W and PNI-A together", injection="cni-w+pni-a")

RECIPES = (
    *(NATURAL, AT, AT_FULL, TRADES_1, TRADES_6, MART, PNI_W, PNI_W_CHANNEL, PNI_W_LAYER, PNI_A),
    *(CNI_W, CNI_A, CNI_W_PNI_A),
)
