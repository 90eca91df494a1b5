"""Randomised and instance-adaptive defences of other authors, for comparison."""

from smoothed.training.recipes.baselines import AT, AT_FULL, NATURAL

RSE = NATURAL.variant(
    "rse",
    "Liu et al., 2018 (random self-ensemble)",
    "fixed noise on the input of every convolution: 0.2 at the first, 0.1 at the others",
    injection="rse",
)
GAUSSIAN = NATURAL.variant(
    "gaussian",
    "Cohen, Rosenfeld and Kolter, 2019",
    "Gaussian input noise with a standard deviation of 0.25 in pixel units, for certification",
    input_sigma=0.25,
)
SALMAN = GAUSSIAN.variant(
    "smoothadv-l2",
    "Salman et al., 2019",
    "gaussian under L2 PGD-10 (radius 0.5) on the soft vote of 4 draws, which the loss uses too",
    attack="epgd",
    adversarial_weight=1.0,
    norm="l2",
    eps=0.5,
    eps_warmup=0.1,
    attack_steps=10,
    eot_samples=4,
    input_draws="fixed",
    loss_samples=4,
)
IAAT = AT.variant(
    "iaat", "Balaji, Goldstein and Hoffman, 2019", "a radius for each image, adapted during training", attack="iaat"
)
# A deviation of 0.1 is this project's choice for both kinds of noisy copies; choose yours on held-out images.
STABILITY = NATURAL.variant(
    "stability",
    "Zheng et al., 2016",
    "clean loss plus twice the divergence of the outputs on a noisy copy (deviation 0.1 in pixel units)",
    loss="trades",
    attack="noisy",
    beta=2.0,
    copy_sigma=0.1,
)
MAXUP = NATURAL.variant(
    "maxup",
    "Gong et al., 2020",
    "loss of the worst of 4 noisy copies (deviation 0.1 in pixel units)",
    attack="maxup",
    adversarial_weight=1.0,
    copies=4,
    copy_sigma=0.1,
)
MAXUP_CROP = MAXUP.variant(
    "maxup-crop", MAXUP.source, "loss of the worst of 4 copies shifted by up to 4 pixels", attack="maxup-crop"
)
DYNAMIC = AT_FULL.variant(
    "dynamic",
    "Wang et al., 2019 (on the convergence of adversarial training)",
    "loss under PGD-10 that ends for each image once it has converged as far as the point of the run asks for",
    attack="dynamic",
    attack_steps=10,
)
VARIATIONAL_DROPOUT = NATURAL.variant(
    "vdo",
    "Kingma, Salimans and Welling, 2015",
    "learned multiplicative noise on each weight and its divergence from a prior; clean images",
    injection="vdo-w",
)
VARIATIONAL_DROPOUT_AT = AT.variant(
    "vdo-w",
    VARIATIONAL_DROPOUT.source,
    "learned multiplicative noise on each weight and its divergence from a prior; trained as pni-w",
    injection="vdo-w",
)

RECIPES = (
    *(RSE, GAUSSIAN, SALMAN, IAAT, STABILITY, MAXUP, MAXUP_CROP, DYNAMIC),
    *(VARIATIONAL_DROPOUT, VARIATIONAL_DROPOUT_AT),
)
