"""Cheaper training, and what makes any training better today. Each change also goes onto any other recipe."""

from smoothed.training.recipes.baselines import AT, AT_FULL, TRADES_6

ONE_CYCLE = {"epochs": 30, "batch_size": 128, "schedule": "onecycle", "lr": 0.2, "weight_decay": 5e-4}

FGSM_RS = AT_FULL.but(
    "fgsm-rs",
    "Wong, Rice and Kolter, 2020",
    "one step of 1.25 eps from a random start; one cycle of the rate",
    attack="fgsm-rs",
    **ONE_CYCLE,
)
NFGSM = FGSM_RS.but("nfgsm", "de Jorge et al., 2022", "one step from noise of 2 eps, unprojected", attack="nfgsm")
FREE = AT_FULL.but(
    "free",
    "Shafahi et al., 2019",
    "8 steps on each batch; one backward pass moves weights and images",
    attack="free",
    replays=8,
    epochs=50,
)
EMA = AT.but("at+ema", "Izmailov et al., 2018", "the average of the weights is kept", average=0.999)
AWP = AT_FULL.but(
    "at+awp",
    "Wu, Xia and Wang, 2020",
    "trains where the loss is worst around the weights",
    weight_perturbation=0.01,
)
TRADES_AWP = TRADES_6.but("trades+awp", AWP.source, "the same with TRADES", weight_perturbation=0.005)
LABEL_SMOOTHING = AT.but(
    "at+ls",
    "Szegedy et al., 2016",
    "a tenth of the target is spread over all classes",
    label_smoothing=0.1,
)
GRADUAL = AT.but(
    "at+gradual",
    "Wang et al., 2019 (on the convergence of adversarial training)",
    "radius and steps grow over the first fifth of the run",
    eps_warmup=0.2,
    steps_warmup=0.2,
)

RECIPES = (FGSM_RS, NFGSM, FREE, EMA, AWP, TRADES_AWP, LABEL_SMOOTHING, GRADUAL)
