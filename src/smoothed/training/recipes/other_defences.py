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
    "loss under PGD-10, stopped at each image by a convergence criterion that tightens over the run",
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
# The radius and the single step are those of a public reimplementation for a ResNet-50, for clean accuracy.
ADVPROP = AT.variant(
    "advprop",
    "Xie et al., 2020",
    "mean of the clean loss and the loss under PGD-1 of radius 1/255, whose images have batch norms of their own",
    eps=1 / 255,
    attack_steps=1,
    relative_step_size=1.0,
    auxiliary_norms=True,
)
DENOISE = AT_FULL.variant(
    "denoise",
    "Xie et al., 2019 (feature denoising)",
    "loss under PGD-7 only; a block of non-local means after each stage of the network",
    architecture="resnet20-denoise",
)
RANDOMIZED_DISCRETIZATION = NATURAL.variant(
    "randdisc",
    "Zhang and Liang, 2019",
    "clean images whose pixels, with Gaussian noise of 16/255, become one of 5 colours of the noisy image",
    injection="randdisc",
)
ANP = NATURAL.variant(
    "anp",
    "Liu et al., 2019 (adversarial noise propagation)",
    "adversarial noise on clean images and the outputs of the first 4 layers, in up to 3 passes on each batch",
    hidden_noise=1.0,
)
L2L = AT_FULL.variant(
    "l2l",
    "Jiang et al., 2021",
    "loss on examples of an attacker network (input: image and gradient) that is trained alternately",
    attack="l2l",
)
L2L_2 = L2L.variant("l2l-2", L2L.source, "l2l with a second attacker step from the first example", attack="l2l-2")
# Both weights are this project's choice; choose yours on held-out images.
CSAT = AT_FULL.variant(
    "csat",
    "Sarkar, Gupta and Iyengar, 2019",
    "loss under PGD-7, the departure from linearity towards the example, and a tenth of a local Lipschitz term",
    loss="csat",
    beta=1.0,
    lipschitz_weight=0.1,
)
VARIATIONAL_DROPOUT_OUTPUTS = VARIATIONAL_DROPOUT_AT.variant(
    "vdo-a",
    VARIATIONAL_DROPOUT.source,
    "vdo-w with the noise of each weight drawn at the outputs of its layer, for each image",
    injection="vdo-a",
)
# The authors' code takes one draw for each gradient; 4 draws are this project's choice. The prior decays the weights.
ADV_BNN = AT_FULL.variant(
    "adv-bnn",
    "Liu et al., 2019 (Adv-BNN)",
    "Gaussian posterior over weights and its divergence from a prior; loss under PGD-10 on the mean loss of 4 draws",
    injection="bnn-w",
    attack="epgd-loss",
    attack_steps=10,
    eot_samples=4,
    weight_decay=0.0,
)
ADV_BNN_NO_KL = ADV_BNN.variant(
    "adv-bnn-no-kl", ADV_BNN.source, "adv-bnn without the divergence from the prior", kl_weight=0.0
)
VORONOI = AT_FULL.variant(
    "voronoi",
    "Khoury and Hadfield-Menell, 2019",
    "loss under PGD-10 in the Voronoi cell of the image among training images of other classes",
    attack="voronoi",
    attack_steps=10,
)
VORONOI_BALL = VORONOI.variant(
    "voronoi-ball",
    VORONOI.source,
    "voronoi with a ball of the cells' mean size in place of the cell",
    attack="voronoi-ball",
)

RECIPES = (
    *(RSE, GAUSSIAN, SALMAN, IAAT, STABILITY, MAXUP, MAXUP_CROP, DYNAMIC),
    *(VARIATIONAL_DROPOUT, VARIATIONAL_DROPOUT_AT, VARIATIONAL_DROPOUT_OUTPUTS, ADV_BNN, ADV_BNN_NO_KL),
    *(VORONOI, VORONOI_BALL),
    *(ANP, L2L, L2L_2, CSAT),
    *(ADVPROP, DENOISE, RANDOMIZED_DISCRETIZATION),
)
