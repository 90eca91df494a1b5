"""Options of `smoothed train`. Most of them override a setting of the recipe, which is unchanged without the option."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from smoothed.cli.choices import (
    ARCHITECTURES,
    AUGMENTATIONS,
    EXAMPLES,
    INJECTIONS,
    RATE_SCHEDULES,
    TRAINING_ATTACKS,
    TRAINING_LOSSES,
)
from smoothed.cli.options import (
    NORM_HELP,
    PRECISIONS_HELP,
    SEED_HELP,
    STEPS_HELP,
    Json,
    Report,
    TimeLimit,
    attack_option,
    model_args_option,
    normalize_option,
    normalized_help,
    option,
    run_option,
    weights_option,
)
from smoothed.cli.parsing import fraction, names

DEFAULT_RECIPE = "cni-w"

NETWORK_PANEL = "Network and noise"
LOSS_PANEL = "Loss"
OPTIMISER_PANEL = "Optimiser"

OWN_NETWORK = "the network of --architecture package.module:function"


@dataclass(frozen=True)
class TrainingSourceOptions:
    """The recipe, the data, and the weights to start from."""

    recipe: Annotated[
        str | None,
        typer.Option(
            help="Named training configuration (see `smoothed recipes`), or package.module:name of a TrainingConfig, a "
            "Recipe, or a function that returns one.",
            show_default=DEFAULT_RECIPE,
        ),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(help="Configuration of an earlier run instead of a recipe: its card.json, or a checkpoint of it."),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(
            help="Training data: cifar10, cifar100, the folder of either, a folder with one folder of images per class "
            "(also imagefolder:PATH; imagefolder:PATH@SIZE resizes them), or package.module:function that returns data."
        ),
    ] = None
    validation: Annotated[
        str | None,
        typer.Option(
            help="Held-out data, in a form of --data, which decide which checkpoint is kept.",
            show_default="the validation split, or a tenth of the training data",
        ),
    ] = None
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Checkpoint to fine-tune: a bundled name or a path. Missing noise layers are added to it. Its last "
            "layer is replaced if the data has another number of classes.",
        ),
    ] = None


@dataclass(frozen=True)
class TrainingNetworkOptions:
    """The network that is trained, the noise in it and on its inputs, and changes of the images."""

    new_head: Annotated[
        bool | None,
        option(
            NETWORK_PANEL,
            "Replace the last linear layer of --from even if the number of classes is the same.",
            "--new-head",
        ),
    ] = None
    augmentation: Annotated[
        str | None,
        option(
            NETWORK_PANEL,
            f"Random changes of the training images: {names(AUGMENTATIONS)}. crop-flip shifts them by up to 4 pixels "
            "and mirrors half of them.",
        ),
    ] = None
    architecture: Annotated[
        str | None,
        option(
            NETWORK_PANEL,
            f"Architecture: {names(ARCHITECTURES)}, or package.module:function that returns a network of your own.",
        ),
    ] = None
    model_args: Annotated[str | None, model_args_option(NETWORK_PANEL, "--architecture")] = None
    weights: Annotated[Path | None, weights_option(NETWORK_PANEL, OWN_NETWORK)] = None
    normalize: Annotated[str | None, normalize_option(NETWORK_PANEL, OWN_NETWORK)] = None
    injection: Annotated[
        str | None,
        option(
            NETWORK_PANEL,
            f"Noise inside the network: {names(INJECTIONS)}. With --from, keep keeps the noise that is there, and none "
            "removes it. At the published strength, the accuracy of a network that was trained without noise falls to "
            "chance until it is fine-tuned.",
        ),
    ] = None
    injection_strength: Annotated[
        float | None,
        option(
            NETWORK_PANEL,
            "Factor on the initial standard deviation of the noise inside the network, or on that of --from.",
        ),
    ] = None
    input_sigma: Annotated[
        float | None,
        option(NETWORK_PANEL, "Standard deviation of Gaussian noise on the training inputs, in pixel units of [0, 1]."),
    ] = None
    input_sigma_normalized: Annotated[float | None, option(NETWORK_PANEL, normalized_help("--input-sigma"))] = None
    input_draws: Annotated[
        str | None,
        option(
            NETWORK_PANEL,
            "fresh: new input noise at each forward pass; fixed: --eot-samples draws per step, which attack and loss "
            "share.",
        ),
    ] = None


@dataclass(frozen=True)
class TrainingAttackOptions:
    """The attack that makes the training examples."""

    attack: Annotated[
        str | None,
        attack_option(
            f"Attack that makes the training examples: {names((*TRAINING_ATTACKS, *EXAMPLES))}, or "
            "package.module:function of (model, inputs, labels, generator).",
        ),
    ] = None
    norm: Annotated[str | None, attack_option(NORM_HELP)] = None
    eps: Annotated[
        float | None,
        attack_option("Radius in pixel units of [0, 1], such as 8/255.", parser=fraction, metavar="NUMBER"),
    ] = None
    eps_warmup: Annotated[float | None, attack_option("Share of the run, in [0, 1], over which eps grows from 0.")] = (
        None
    )
    attack_steps: Annotated[int | None, attack_option(STEPS_HELP, "--steps")] = None
    relative_step_size: Annotated[float | None, attack_option("Length of each gradient step, as a share of eps.")] = (
        None
    )
    steps_warmup: Annotated[
        float | None, attack_option("Share of the run, in [0, 1], over which the number of steps grows from 1.")
    ] = None
    nfgsm_warmup: Annotated[
        float | None,
        attack_option("N-FGSM replaces the attack for this first share of the run, in [0, 1]."),
    ] = None
    eot_samples: Annotated[
        int | None, attack_option("Draws averaged for each gradient of epgd, epgd-loss and smoothadv.")
    ] = None
    copies: Annotated[
        int | None, attack_option("Random copies of an image, of which maxup and maxup-crop take the worst.")
    ] = None
    copy_sigma: Annotated[
        float | None,
        attack_option(
            "Standard deviation of the Gaussian noise of copies (noisy, maxup), in pixel units, such as 25/255.",
            parser=fraction,
            metavar="NUMBER",
        ),
    ] = None


@dataclass(frozen=True)
class TrainingLossOptions:
    """The loss, and what is added to it."""

    loss: Annotated[str | None, option(LOSS_PANEL, f"Loss: {names(TRAINING_LOSSES)}.")] = None
    adversarial_weight: Annotated[
        float | None,
        option(
            LOSS_PANEL, "Weight of the adversarial term in [0, 1]: w of eq. 6 (adversarial), q of eq. 23 (bernoulli)."
        ),
    ] = None
    beta: Annotated[
        float | None,
        option(
            LOSS_PANEL,
            "Weight of the second term: 1 / lambda of TRADES, lambda of MART, of stability training and of FGSM-PGI, "
            "the weight of departures from linearity of CSAT.",
        ),
    ] = None
    lipschitz_weight: Annotated[float | None, option(LOSS_PANEL, "Weight of the local Lipschitz term of csat.")] = None
    auxiliary_norms: Annotated[
        bool | None,
        option(
            LOSS_PANEL,
            "Use separate batch norms for adversarial images in training (AdvProp); evaluation uses the norms of the "
            "clean images.",
            "--auxiliary-norms/--shared-norms",
        ),
    ] = None
    label_smoothing: Annotated[
        float | None, option(LOSS_PANEL, "Share of the target, in [0, 1], that is spread over all classes.")
    ] = None
    loss_samples: Annotated[int | None, option(LOSS_PANEL, "Draws over which each loss is averaged.")] = None
    kl_weight: Annotated[
        float | None,
        option(LOSS_PANEL, "Weight of the divergence term of variational dropout and Adv-BNN; 1 as published."),
    ] = None
    weight_perturbation: Annotated[
        float | None, option(LOSS_PANEL, "gamma of adversarial weight perturbation; 0 switches it off.")
    ] = None
    hidden_noise: Annotated[
        float | None,
        option(LOSS_PANEL, "Factor on adversarial noise in the first layers (ANP): 1 as published, 0 switches it off."),
    ] = None
    hidden_steps: Annotated[
        int | None, option(LOSS_PANEL, "Passes on each batch while there is noise in the first layers (K of ANP).")
    ] = None
    hidden_layers: Annotated[
        int | None, option(LOSS_PANEL, "Number of first layers whose outputs have the noise of --hidden-noise.")
    ] = None
    replays: Annotated[int | None, option(LOSS_PANEL, "Steps on each batch (m of free adversarial training).")] = None


@dataclass(frozen=True)
class TrainingOptimiserOptions:
    """Length of the training, and its steps."""

    epochs: Annotated[int | None, option(OPTIMISER_PANEL, "Passes over the training images.")] = None
    batch_size: Annotated[int | None, option(OPTIMISER_PANEL, "Images of one step, summed over all processes.")] = None
    accumulation: Annotated[
        int | None,
        option(
            OPTIMISER_PANEL,
            "Parts into which each process splits its share of a batch. Accumulating their gradients saves memory.",
        ),
    ] = None
    schedule: Annotated[str | None, option(OPTIMISER_PANEL, f"Learning-rate schedule: {names(RATE_SCHEDULES)}.")] = None
    lr: Annotated[float | None, option(OPTIMISER_PANEL, "Peak learning rate of SGD.")] = None
    noise_lr: Annotated[
        float | None, option(OPTIMISER_PANEL, "Factor on the learning rate for the learned strengths of the noise.")
    ] = None
    momentum: Annotated[float | None, option(OPTIMISER_PANEL, "Nesterov momentum of SGD.")] = None
    weight_decay: Annotated[
        float | None,
        option(OPTIMISER_PANEL, "L2 penalty on all parameters except noise strengths with a divergence term."),
    ] = None
    average: Annotated[
        float | None,
        option(
            OPTIMISER_PANEL, "Decay of the exponential weight average that is evaluated and kept; 0 switches it off."
        ),
    ] = None


@dataclass(frozen=True)
class TrainingRunOptions:
    """How the training is run, and what is written."""

    precision: Annotated[
        str | None, run_option(f"Precision of the forward passes: {PRECISIONS_HELP}. Weights stay in float32.")
    ] = None
    keep: Annotated[
        str | None,
        run_option(
            "Checkpoints to keep: best (that of the best robust accuracy), or extremes (also those of the best and the "
            "worst clean accuracy)."
        ),
    ] = None
    seed: Annotated[int | None, run_option(SEED_HELP)] = None
    validation_attack_images: Annotated[
        int | None, run_option("Validation images that PGD-7 attacks after each epoch.")
    ] = None
    compiled: Annotated[bool, run_option("Compile the attacked network with torch.compile.", "--compile")] = False
    time_limit: TimeLimit = None
    json: Json = None
    report: Report = None
