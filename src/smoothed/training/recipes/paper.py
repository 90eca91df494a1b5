"""The paper's training methods for smoothed networks (section 4). Fine-tuning starts from a CNI-W network (--from)."""

from smoothed.training.recipes.baselines import CNI_W, TRADES_6

# The paper fine-tunes for up to 200 epochs and states no learning rate; 0.01 is the second of the three in CNI-W's
# schedule.
FINE_TUNING = {"epochs": 200, "lr": 0.01}

CNI_I_W = CNI_W.variant(
    "cni-i+w",
    "the paper, eq. 23",
    "fine-tuning with input noise of 0.24 (normalised); a random half of the images attacked",
    loss="bernoulli",
    input_sigma_normalized=0.24,
    **FINE_TUNING,
)
EPGD = CNI_W.variant(
    "epgd",
    "the paper, eq. 25",
    "fine-tuning under EPGD of 8 draws; keeps the networks of best and worst clean accuracy",
    attack="epgd",
    keep="extremes",
    **FINE_TUNING,
)
SMOOTHADV = CNI_W.variant(
    "smoothadv",
    "the paper, eq. 24",
    "fine-tuning under SmoothAdv of 8 draws (mean logits)",
    attack="smoothadv",
    **FINE_TUNING,
)
HIGH_K = CNI_W.variant("high-k", "the paper, section 5", "fine-tuning under PGD-56", attack_steps=56, **FINE_TUNING)
CNI_W_TRADES = TRADES_6.variant("cni-w+trades", "the paper, section 5", "CNI-W trained with TRADES", injection="cni-w")
PNI_W_TRADES = TRADES_6.variant("pni-w+trades", "the paper, section 5", "PNI-W trained with TRADES", injection="pni-w")
LEARNED_INPUT = CNI_W.variant(
    "cni-w+input",
    "the paper, section 3.1",
    "CNI-W with input noise of learned strength",
    injection="cni-w+input",
)

RECIPES = (CNI_I_W, EPGD, SMOOTHADV, HIGH_K, CNI_W_TRADES, PNI_W_TRADES, LEARNED_INPUT)
