"""Cheaper training, and techniques that improve adversarial training. Each also combines with other recipes."""

from smoothed.training.recipes.baselines import AT, AT_FULL, TRADES_6

ONE_CYCLE = {"epochs": 30, "batch_size": 128, "schedule": "onecycle", "lr": 0.2, "weight_decay": 5e-4}

FGSM_RS = AT_FULL.variant(
    "fgsm-rs",
    "Wong, Rice and Kolter, 2020",
    "one step of 1.25 eps from a random start; one-cycle learning rate",
    attack="fgsm-rs",
    **ONE_CYCLE,
)
NFGSM = FGSM_RS.variant(
    "nfgsm", "de Jorge et al., 2022", "one step from uniform noise of radius 2 eps, without projection", attack="nfgsm"
)
FGSM_PGI = FGSM_RS.variant(
    "fgsm-pgi",
    "Jia et al., 2022",
    "one step from the perturbation of earlier epochs; plus 10 times the squared change of the logits in that step",
    attack="fgsm-pgi",
    relative_step_size=1.0,
    loss="consistency",
    beta=10.0,
)
FREE = AT_FULL.variant(
    "free",
    "Shafahi et al., 2019",
    "8 steps on each batch; one backward pass updates weights and images",
    attack="free",
    replays=8,
    epochs=50,
)
EMA = AT.variant("at+ema", "Izmailov et al., 2018", "exponential average of the weights", average=0.999)
AWP = AT_FULL.variant(
    "at+awp",
    "Wu, Xia and Wang, 2020",
    "gradient at adversarially perturbed weights",
    weight_perturbation=0.01,
)
TRADES_AWP = TRADES_6.variant(
    "trades+awp", AWP.source, "TRADES with the gradient at adversarially perturbed weights", weight_perturbation=0.005
)
LABEL_SMOOTHING = AT.variant(
    "at+ls",
    "Szegedy et al., 2016",
    "a tenth of the target is spread over all classes",
    label_smoothing=0.1,
)
GRADUAL = AT.variant(
    "at+gradual",
    "Wang et al., 2019 (on the convergence of adversarial training)",
    "eps and the number of attack steps grow over the first fifth of the run",
    eps_warmup=0.2,
    steps_warmup=0.2,
)

RECIPES = (FGSM_RS, NFGSM, FGSM_PGI, FREE, EMA, AWP, TRADES_AWP, LABEL_SMOOTHING, GRADUAL)
