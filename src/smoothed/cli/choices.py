"""Names that help texts list. They are repeated here because importing the registries takes seconds (torch).

Commands check their arguments against the registries; tests/cli/test_choices.py compares these lists with them.
"""

EVALUATION_ATTACKS = (
    *("fgsm", "pgd", "epgd", "epgd-loss", "smoothadv", "pgd-accumulated", "epgd-accumulated", "mi-fgsm"),
    *("epgd-vote", "epgd-margin", "multi-targeted", "apgd-ce", "apgd-dlr", "apgd-t", "cw-l2", "cw-linf", "cw-l0"),
    *("ddn", "transfer", "substitute", "square", "nattack", "zoo", "bayes"),
)
TRAINING_ATTACKS = (
    *("fgsm", "fgsm-rs", "nfgsm", "pgd", "kl", "epgd", "epgd-loss", "smoothadv", "pgd-accumulated"),
    *("epgd-accumulated", "mi-fgsm"),
)
EXAMPLES = (
    *("none", "free", "iaat", "noisy", "maxup", "maxup-crop", "dynamic", "fgsm-pgi", "l2l", "l2l-2", "voronoi"),
    "voronoi-ball",
)
NORMS = ("linf", "l2")
SEES = ("logits", "shares", "labels")
NOISES = ("gaussian", "uniform", "laplace")
VOTES = ("prediction", "weighted", "soft")
INJECTIONS = (
    *("none", "pni-w", "pni-w-channel", "pni-w-layer", "pni-a-a", "pni-a-b", "cni-w", "cni-a", "cni-w+pni-a"),
    *("cni-w+input", "rse", "vdo-w", "vdo-w-layer", "vdo-a", "bnn-w", "randdisc", "cni-w+randdisc"),
)
ARCHITECTURES = (
    *("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "wide_resnet28_10", "wide_resnet34_10"),
    *("resnet20-denoise", "resnet20-denoise-gaussian"),
)
AUGMENTATIONS = ("crop-flip", "none")
TRAINING_LOSSES = ("adversarial", "bernoulli", "trades", "mart", "consistency", "csat")
RATE_SCHEDULES = ("steps", "onecycle")
