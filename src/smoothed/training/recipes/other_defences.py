"""Randomised and instance-adaptive defences of other authors, for comparison."""

from smoothed.training.recipes.baselines import AT, NATURAL

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

RECIPES = (RSE, GAUSSIAN, SALMAN, IAAT)
