"""Other random and adaptive defences, for comparison."""

from smoothed.training.recipes.baselines import AT, NATURAL

RSE = NATURAL.but(
    "rse",
    "Liu et al., 2018 (random self-ensemble)",
    "fixed noise before every convolution: 0.2 at the first, 0.1 inside",
    injection="rse",
)
GAUSSIAN = NATURAL.but(
    "gaussian",
    "Cohen, Rosenfeld and Kolter, 2019",
    "Gaussian noise of 0.25 (pixels) on the input, for certification",
    input_sigma=0.25,
    input_sigma_units="pixel",
)
SALMAN = GAUSSIAN.but(
    "smoothadv-l2",
    "Salman et al., 2019",
    "the same under L2 PGD-10 (radius 0.5) on the soft vote of 4 draws, which the loss shares",
    attack="epgd",
    adversarial_weight=1.0,
    norm="l2",
    eps=0.5,
    eps_warmup=0.1,
    attack_steps=10,
    attack_samples=4,
    input_draws="fixed",
    loss_samples=4,
)
IAAT = AT.but("iaat", "Balaji, Goldstein and Hoffman, 2019", "a radius for each image, adapted", attack="iaat")

RECIPES = (RSE, GAUSSIAN, SALMAN, IAAT)
