"""Configuration of a training run as plain values, which the model card stores so that the run can be repeated."""

import difflib
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from smoothed.attacks import TRAINING_ATTACKS
from smoothed.attacks.radius import settled_radius
from smoothed.checkpoint import CUSTOM
from smoothed.data.named import FOLDER_PREFIX
from smoothed.errors import ArgumentError
from smoothed.injection import PRESETS
from smoothed.models import ARCHITECTURES
from smoothed.training.examples import AFTER_NFGSM, EXAMPLES, NOISY_COPIES
from smoothed.training.losses import TRAINING_LOSSES
from smoothed.training.schedules import SCHEDULES
from smoothed.utils.checks import (
    check_choice,
    check_flag,
    check_fraction,
    check_not_negative,
    check_positive,
    check_seed,
)
from smoothed.utils.devices import PRECISIONS

KEEP_CHOICES = ("best", "extremes")
AUGMENTATIONS = ("crop-flip", "none")
KEEP_NOISE, REMOVE_NOISE = "keep", "remove"
"""Values of `injection` for a network that has noise already."""
NAMED_DATA = ("cifar10", "cifar100")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training run. The defaults are the paper's CNI-W: a ResNet-20 on CIFAR-10.

    Attributes:
        recipe: name of the recipe that the settings come from; a label without effect.
        data: data set: `cifar10`, `cifar100`, `imagefolder:PATH`, or `custom` for data of your own.
        augmentation: `crop-flip` for a random crop of the image padded by 4 pixels and a random horizontal flip; `none`
            for images as the data set gives them, for example where a mirrored image would have another class.
        architecture: key of `models.ARCHITECTURES`, or `custom` for a network of your own.
        injection: noise inside the network, a key of `injection.PRESETS`. Noise of `start` (or of your own network)
            that is not part of it is an error. Two more values choose what becomes of such noise: `keep` keeps it and
            adds none, `remove` removes it.
        injection_strength: factor, at least 0, on the initial deviation of the injected noise: the preset's, or the
            learned one of `start`. Short runs learn faster from less noise.
        input_sigma: standard deviation of Gaussian noise on the training inputs, in pixel units of [0, 1]. The attack
            faces the same noise. At most one of `input_sigma` and `input_sigma_normalized` is above 0.
        input_sigma_normalized: the same in the paper's unit, after division by the data set's deviation.
        input_draws: `fresh` for new input noise at each forward pass; `fixed` for `eot_samples` draws per step, which
            attack and loss share.
        start: checkpoint to fine-tune, a bundled name or a path; None starts from random weights.
        new_head: whether the last linear layer of `start` is replaced by a new one. It is replaced in any case if the
            data has another number of classes.
        attack: method that makes the adversarial examples: one of `attacks.TRAINING_ATTACKS`, a key of
            `training.examples.EXAMPLES`, or `custom` for an attack of your own.
        norm: norm of the attack's radius, `linf` or `l2`.
        eps: radius of the attack, in pixel units of [0, 1]; at most 1 for `linf`.
        eps_warmup: share of the run, in [0, 1], over which eps grows from 0.
        attack_steps: gradient steps of the attack, the paper's k; single-step attacks ignore it.
        relative_step_size: length of each attack step, as a share of eps; `mi-fgsm` takes 1 / `attack_steps` instead.
        steps_warmup: share of the run, in [0, 1], over which the number of attack steps grows from 1.
        nfgsm_warmup: first share of the run, in [0, 1], in which the cheaper N-FGSM replaces the attack.
        eot_samples: draws averaged for each gradient of the attack; attacks on a single draw ignore it.
        copies: number of random copies of an image, m of MaxUp, among which `maxup` and `maxup-crop` take the worst.
        copy_sigma: standard deviation of the Gaussian noise of copies (`noisy`, `maxup`), in pixel units of [0, 1].
        loss: key of `losses.TRAINING_LOSSES`.
        adversarial_weight: weight of the adversarial examples, in [0, 1]: w of eq. 6 (1 drops the clean term, 0 the
            adversarial one), q of eq. 23.
        beta: weight of the second term, at least 0: 1 / lambda in TRADES, lambda in MART, in stability training and in
            FGSM-PGI, the weight of departures from linearity in CSAT.
        auxiliary_norms: whether adversarial images pass through a second set of batch norms in training (AdvProp).
        lipschitz_weight: weight of the local Lipschitz term of the loss `csat`, at least 0.
        label_smoothing: share of the target, in [0, 1], that is spread over all classes.
        loss_samples: draws over which each loss is averaged.
        kl_weight: weight, at least 0, of the divergence of the posterior over weights from its prior (variational
            dropout, Adv-BNN), which is divided by the number of training images: 1 is the published bound. It has no
            effect on other kinds of noise.
        weight_perturbation: gamma of adversarial weight perturbation, relative to each layer's norm; 0 for none.
        hidden_noise: factor, at least 0, on the published strength of adversarial noise on the image and the first
            layers (ANP); 0 for none.
        hidden_steps: passes on each batch in the epochs with this noise, K of ANP, at least 2.
        hidden_layers: number of convolutions and linear layers, the first ones, whose outputs have such noise.
        replays: optimiser steps on each batch (m of free adversarial training).
        epochs: passes over the training images.
        batch_size: images of one step, summed over all processes.
        accumulation: number of parts into which each process divides its share of a batch, to save memory.
        schedule: learning-rate schedule, a key of `schedules.SCHEDULES`.
        lr: peak learning rate of SGD.
        noise_lr: factor on the learning rate for the learned strengths of the noise.
        momentum: Nesterov momentum of SGD; 0 for none.
        weight_decay: L2 penalty on all parameters except the noise strengths of layers with a divergence term.
        average: decay of the exponential weight average that is evaluated and kept; 0 keeps the weights themselves.
        precision: `auto` (bf16 where the hardware supports it), `float32` or `bf16` (mixed).
        keep: checkpoints to keep: `best` for the best robust validation accuracy; `extremes` for those of the best and
            the worst clean validation accuracy as well.
        seed: seed of all random numbers.
        validation_attack_images: number of validation images that PGD-7 attacks after each epoch.
    """

    recipe: str = "cni-w"
    data: str = "cifar10"
    augmentation: str = "crop-flip"
    architecture: str = "resnet20"
    injection: str = "cni-w"
    injection_strength: float = 1.0
    input_sigma: float = 0.0
    input_sigma_normalized: float = 0.0
    input_draws: str = "fresh"
    start: str | None = None
    new_head: bool = False
    attack: str = "pgd"
    norm: str = "linf"
    eps: float = 8 / 255
    eps_warmup: float = 0.0
    attack_steps: int = 7
    relative_step_size: float = 0.25
    steps_warmup: float = 0.0
    nfgsm_warmup: float = 0.0
    eot_samples: int = 8
    copies: int = 4
    copy_sigma: float = 0.1
    loss: str = "adversarial"
    adversarial_weight: float = 0.5
    beta: float = 6.0
    auxiliary_norms: bool = False
    lipschitz_weight: float = 0.1
    label_smoothing: float = 0.0
    loss_samples: int = 1
    kl_weight: float = 1.0
    weight_perturbation: float = 0.0
    hidden_noise: float = 0.0
    hidden_steps: int = 3
    hidden_layers: int = 4
    replays: int = 1
    epochs: int = 400
    batch_size: int = 256
    accumulation: int = 1
    schedule: str = "steps"
    lr: float = 0.1
    noise_lr: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    average: float = 0.0
    precision: str = "auto"
    keep: str = "best"
    seed: int = 0
    validation_attack_images: int = 1000

    def __post_init__(self) -> None:
        _check_kinds(self)
        _check_numbers(self)
        _check_combinations(self)

    @property
    def needs_attack(self) -> bool:
        """Whether the loss uses adversarial examples."""
        if self.attack == "none":
            return False
        regularised = self.beta > 0 or self.lipschitz_weight > 0 or self.adversarial_weight > 0
        always = {"trades": self.beta > 0, "mart": True, "consistency": True, "csat": regularised}
        return always.get(self.loss, self.adversarial_weight > 0)

    def to_json(self) -> dict[str, Any]:
        """Return all settings as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Create a configuration from the values of `to_json`.

        Raises:
            ArgumentError: a setting is unknown to this version, or its value has the wrong type.
        """
        known = {field.name: field for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                similar = difflib.get_close_matches(name, known)
                hint = f"did you mean {' or '.join(similar)}?" if similar else ""
                raise ArgumentError("config", "settings that this version knows", name, hint)
            default = known[name].default
            types = (str, type(None)) if default is None else (int, float) if type(default) is float else type(default)
            if not isinstance(value, types) or isinstance(value, bool) != isinstance(default, bool):
                expected_type = getattr(known[name].type, "__name__", known[name].type)
                raise ArgumentError("config", f"{name} of type {expected_type}", repr(value))
        return cls(**values)


def _check_kinds(config: TrainingConfig) -> None:
    """Raise `ArgumentError` unless all settings that are no amounts have their type and one of their values."""
    for name in ("recipe", "data", "start"):
        value = getattr(config, name)
        if not isinstance(value, str) and (value is not None or name != "start"):
            raise ArgumentError(name, "a string", repr(value))
    for name in ("new_head", "auxiliary_norms"):
        check_flag(getattr(config, name), name)
    check_seed(config.seed)
    if not config.data.startswith(FOLDER_PREFIX):
        check_choice(config.data, (*NAMED_DATA, CUSTOM), "data")
    choices = {
        "augmentation": AUGMENTATIONS,
        "architecture": (*ARCHITECTURES, CUSTOM),
        "injection": (*PRESETS, KEEP_NOISE, REMOVE_NOISE),
        "input_draws": ("fresh", "fixed"),
        "attack": (*TRAINING_ATTACKS, *EXAMPLES, CUSTOM),
        "norm": ("linf", "l2"),
        "loss": TRAINING_LOSSES,
        "schedule": SCHEDULES,
        "precision": PRECISIONS,
        "keep": KEEP_CHOICES,
    }
    for name, allowed in choices.items():
        check_choice(getattr(config, name), allowed, name)


def _check_numbers(config: TrainingConfig) -> None:
    """Raise `ArgumentError` unless all amounts are in their ranges."""
    counts = ("attack_steps", "eot_samples", "copies", "loss_samples", "replays", "epochs", "batch_size")
    for name in (*counts, "accumulation", "validation_attack_images", "hidden_steps", "hidden_layers"):
        check_positive(getattr(config, name), name)
    amounts = ("injection_strength", "input_sigma", "input_sigma_normalized", "eps", "relative_step_size", "beta")
    for name in (
        *amounts,
        "copy_sigma",
        "kl_weight",
        "weight_perturbation",
        "lipschitz_weight",
        "hidden_noise",
        "lr",
        "noise_lr",
        "momentum",
        "weight_decay",
    ):
        check_not_negative(getattr(config, name), name)
    for name in ("adversarial_weight", "label_smoothing", "average", "eps_warmup", "steps_warmup", "nfgsm_warmup"):
        check_fraction(getattr(config, name), name)
    settled_radius(config.eps, config.norm)
    expected = "a standard deviation of at most 1 (pixel units of [0, 1])"
    if config.input_sigma > 1:
        hint = "for a number in the paper's unit, set input_sigma_normalized instead"
        raise ArgumentError("input_sigma", expected, config.input_sigma, hint)
    if config.copy_sigma > 1:
        raise ArgumentError("copy_sigma", expected, config.copy_sigma, "write 25/255 for 25 grey levels")


def _check_combinations(config: TrainingConfig) -> None:
    """Raise `ArgumentError` if two settings exclude each other."""
    if config.input_sigma > 0 and config.input_sigma_normalized > 0:
        raise ArgumentError("input_sigma", "only one of input_sigma and input_sigma_normalized above 0", "both")
    if config.injection in (KEEP_NOISE, REMOVE_NOISE) and config.start is None and config.architecture != CUSTOM:
        hint = "name the network to fine-tune: --from on the command line, start= in Python"
        raise ArgumentError("injection", "a noise for a new network", repr(config.injection), hint)
    if config.new_head and config.start is None:
        hint = "name the network to fine-tune: --from on the command line, start= in Python"
        raise ArgumentError("new_head", "a checkpoint whose last layer it replaces", "none", hint)
    if config.copy_sigma == 0 and config.attack in NOISY_COPIES:
        reason = "because copies without noise equal the images"
        expected = f"a standard deviation above 0 with attack {config.attack}, {reason}"
        raise ArgumentError("copy_sigma", expected, config.copy_sigma)
    if config.nfgsm_warmup > 0 and (config.attack not in (*AFTER_NFGSM, CUSTOM) or config.norm != "linf"):
        expected = f"0 with attack {config.attack} in norm {config.norm}, which N-FGSM cannot stand in for"
        raise ArgumentError("nfgsm_warmup", expected, config.nfgsm_warmup)
    if config.hidden_noise > 0 and config.hidden_steps == 1:
        expected = "at least 2 with hidden_noise: the noise of a pass comes from the gradient of the one before"
        raise ArgumentError("hidden_steps", expected, config.hidden_steps)
    both = {"adversarial": 0 < config.adversarial_weight < 1, "trades": config.beta > 0, "mart": config.beta > 0}
    if config.auxiliary_norms and not (config.needs_attack and both.get(config.loss, False)):
        expected = "False where the loss does not have clean and adversarial images, each in a pass of its own"
        hint = "use loss adversarial with an adversarial_weight between 0 and 1, trades or mart"
        raise ArgumentError("auxiliary_norms", expected, True, hint)
    if config.loss == "mart" and config.label_smoothing > 0:
        raise ArgumentError("label_smoothing", "0 with loss mart, which uses hard labels", config.label_smoothing)
