"""Training of the paper's models and baselines: ResNet-20, 400 epochs, SGD whose learning rate drops twice."""

from smoothed.training.recipes.recipe import Recipe

NATURAL = Recipe(
    "natural",
    "He et al., 2016",
    "cross-entropy on clean images",
    {"injection": "none", "attack": "none", "adversarial_weight": 0.0},
)
AT = NATURAL.variant(
    "at",
    "Madry et al., 2018; the paper, eq. 6",
    "mean of the clean loss and the loss under PGD-7",
    attack="pgd",
    adversarial_weight=0.5,
)
AT_FULL = AT.variant("at-full", "Madry et al., 2018", "loss under PGD-7 only", adversarial_weight=1.0)
TRADES_6 = AT.variant(
    "trades-6",
    "Zhang et al., 2019",
    "clean loss plus 6 times the divergence, which PGD-10 maximises",
    loss="trades",
    attack="kl",
    attack_steps=10,
    beta=6.0,
)
TRADES_1 = TRADES_6.variant(
    "trades-1", "Zhang et al., 2019", "clean loss plus the divergence, which PGD-10 maximises", beta=1.0
)
MART = AT.variant(
    "mart",
    "Wang et al., 2020",
    "boosted cross-entropy under PGD-10; divergence weighted by misclassification",
    loss="mart",
    attack_steps=10,
    beta=5.0,
)
PNI_W = AT.variant("pni-w", "He, Rakin and Fan, 2019", "learned noise on each weight", injection="pni-w")
PNI_W_CHANNEL = PNI_W.variant(
    "pni-w-channel", PNI_W.source, "learned noise on each weight, one strength per channel", injection="pni-w-channel"
)
PNI_W_LAYER = PNI_W.variant(
    "pni-w-layer", PNI_W.source, "learned noise on each weight, one strength per layer", injection="pni-w-layer"
)
PNI_A = AT.variant("pni-a", PNI_W.source, "learned noise on the input of each layer", injection="pni-a-a")
CNI_W = AT.variant("cni-w", "Zheltonozhskii et al., 2020", "learned correlated noise on the weights", injection="cni-w")
CNI_A = CNI_W.variant("cni-a", CNI_W.source, "learned correlated noise on the input of each layer", injection="cni-a")
CNI_W_PNI_A = CNI_W.variant("cni-w+pni-a", CNI_W.source, "CNI-W and PNI-A combined", injection="cni-w+pni-a")

RECIPES = (
    *(NATURAL, AT, AT_FULL, TRADES_1, TRADES_6, MART, PNI_W, PNI_W_CHANNEL, PNI_W_LAYER, PNI_A),
    *(CNI_W, CNI_A, CNI_W_PNI_A),
)
