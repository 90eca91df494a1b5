"""The paper's own ways to train a network that will vote (section 4). Fine-tuning starts from a CNI-W, with --from."""

from smoothed.training.recipes.baselines import CNI_W, TRADES_6

# The paper fine-tunes for up to 200 epochs, at a rate it does not give; this is the second of CNI-W's own three.
FINE_TUNING = {"epochs": 200, "lr": 0.01}

CNI_I_W = CNI_W.but(
    "cni-i+w",
    "the paper, eq. 23",
    "fine-tuning with input noise of 0.24, half the images attacked",
    loss="bernoulli",
    input_sigma=0.24,
    **FINE_TUNING,
)
EPGD = CNI_W.but(
    "epgd",
    "the paper, eq. 25",
    "fine-tuning under EPGD of 8 draws; keeps the best and the worst clean accuracy",
    attack="epgd",
    keep="extremes",
    **FINE_TUNING,
)
SMOOTHADV = CNI_W.but(
    "smoothadv",
    "the paper, eq. 24",
    "fine-tuning under SmoothAdv of 8 draws (mean logits)",
    attack="smoothadv",
    **FINE_TUNING,
)
HIGH_K = CNI_W.but("high-k", "the paper, section 5", "fine-tuning under PGD-56", attack_steps=56, **FINE_TUNING)
CNI_W_TRADES = TRADES_6.but("cni-w+trades", "the paper, section 5", "CNI-W with TRADES", injection="cni-w")
PNI_W_TRADES = TRADES_6.but("pni-w+trades", "the paper, section 5", "PNI-W with TRADES", injection="pni-w")
LEARNED_INPUT = CNI_W.but(
    "cni-w+input",
    "the paper, section 3.1",
    "input noise of a learned strength beside CNI-W",
    injection="cni-w+input",
)

RECIPES = (CNI_I_W, EPGD, SMOOTHADV, HIGH_K, CNI_W_TRADES, PNI_W_TRADES, LEARNED_INPUT)
