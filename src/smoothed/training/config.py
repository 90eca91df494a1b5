"""The whole configuration of a training run, as plain values: what a card stores and a run repeats."""

import difflib
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from smoothed.attacks import TRAINING_ATTACKS
from smoothed.checkpoint import CUSTOM
from smoothed.data.named import FOLDER_PREFIX
from smoothed.errors import ArgumentError
from smoothed.injection import PRESETS
from smoothed.models import ARCHITECTURES
from smoothed.training.examples import EXAMPLES
from smoothed.training.losses import LOSSES
from smoothed.training.schedules import SCHEDULES
from smoothed.utils.checks import check_choice, check_fraction, check_not_negative, check_positive
from smoothed.utils.devices import PRECISIONS

KEPT = ("best", "extremes")


@dataclass(frozen=True)
class TrainingConfig:
    """What to train and how. Defaults are the paper's CNI-W, a ResNet-20 on CIFAR-10 (FACTS, training).

    Attributes:
        recipe: the name of the recipe this started from; a label, every setting of it is below.
        data: `cifar10`, `cifar100` or `imagefolder:PATH`.
        architecture: a key of `models.ARCHITECTURES`, or `custom`.
        injection: a key of `injection.PRESETS`.
        injection_strength: factor on the deviation the learned noise starts with, the law's own or that of `start`;
            short runs learn faster from less.
        input_sigma: deviation of the Gaussian noise on the input while training; the attack sees it, too.
        input_sigma_units: `normalized` (the paper's, after division by the data's deviation) or `pixel`.
        input_draws: `fresh` at each pass, or `fixed`: `attack_samples` draws of a step that attack and loss share.
        start: the checkpoint to fine-tune, a bundled name or a path; None starts anew.
        attack: what makes the adversarial examples: one of `attacks.TRAINING_ATTACKS`, or a key of
            `training.examples.EXAMPLES`.
        norm: of the attack's ball, `linf` or `l2`.
        eps: its radius in pixel units of [0, 1].
        eps_warmup: the share of the run, in [0, 1], over which eps grows from 0.
        attack_steps: the attack's steps, the paper's k (single-step attacks ignore it).
        attack_step: the length of each step, as a share of eps.
        steps_warmup: the share of the run over which the steps grow from 1.
        attack_samples: draws for each of its gradients, the paper's M (attacks on one draw ignore it).
        loss: a key of `losses.LOSSES`.
        adversarial_weight: w of eq. 6 (at 1 the clean term is gone, at 0 the attack), q of eq. 23.
        beta: weight of the divergence, 1 / lambda in TRADES, lambda in MART.
        label_smoothing: share of the target that is spread over all classes.
        loss_samples: draws of each loss; their mean is descended.
        weight_perturbation: gamma of adversarial weight perturbation, relative to each layer's norm; 0 for none.
        replays: steps on each batch (m of free adversarial training).
        epochs: passes over the training part.
        batch_size: images of one step, over all processes.
        accumulation: parts that each process cuts its share of a batch into, one after the other, to save memory.
        schedule: of the learning rate, a key of `schedules.SCHEDULES`.
        lr: its peak.
        noise_lr: factor on it for the noise strengths, whose gradients are the noisier the higher the rate.
        momentum: of SGD, Nesterov's.
        weight_decay: on every parameter.
        average: decay of the exponential weight average that is evaluated and kept; 0 keeps the weights themselves.
        precision: `auto` (bf16 where the hardware has units for it), `float32` or `bf16` (mixed).
        keep: `best` robust validation accuracy, or `extremes`: beside it the best and the worst clean accuracy.
        seed: of everything random.
        validation_attack_images: how many validation images PGD-7 attacks after each epoch.
    """

    recipe: str = "cni-w"
    data: str = "cifar10"
    architecture: str = "resnet20"
    injection: str = "cni-w"
    injection_strength: float = 1.0
    input_sigma: float = 0.0
    input_sigma_units: str = "normalized"
    input_draws: str = "fresh"
    start: str | None = None
    attack: str = "pgd"
    norm: str = "linf"
    eps: float = 8 / 255
    eps_warmup: float = 0.0
    attack_steps: int = 7
    attack_step: float = 0.25
    steps_warmup: float = 0.0
    attack_samples: int = 8
    loss: str = "adversarial"
    adversarial_weight: float = 0.5
    beta: float = 6.0
    label_smoothing: float = 0.0
    loss_samples: int = 1
    weight_perturbation: float = 0.0
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
        if not self.data.startswith(FOLDER_PREFIX):
            check_choice(self.data, ("cifar10", "cifar100"), "data")
        choices = {
            "architecture": (*ARCHITECTURES, CUSTOM),
            "injection": PRESETS,
            "input_sigma_units": ("normalized", "pixel"),
            "input_draws": ("fresh", "fixed"),
            "attack": (*TRAINING_ATTACKS, *EXAMPLES),
            "norm": ("linf", "l2"),
            "loss": LOSSES,
            "schedule": SCHEDULES,
            "precision": PRECISIONS,
            "keep": KEPT,
        }
        for name, allowed in choices.items():
            check_choice(getattr(self, name), allowed, name)
        for name in (
            *("attack_steps", "attack_samples", "loss_samples", "replays", "epochs", "batch_size", "accumulation"),
            "validation_attack_images",
        ):
            check_positive(getattr(self, name), name)
        for name in (
            *("injection_strength", "input_sigma", "eps", "attack_step", "beta", "weight_perturbation"),
            *("lr", "noise_lr", "momentum", "weight_decay"),
        ):
            check_not_negative(getattr(self, name), name)
        for name in ("adversarial_weight", "label_smoothing", "average", "eps_warmup", "steps_warmup"):
            check_fraction(getattr(self, name), name)
        if self.loss == "mart" and self.label_smoothing > 0:
            raise ArgumentError("label_smoothing", "0 with the loss mart, which has hard labels", self.label_smoothing)

    @property
    def needs_attack(self) -> bool:
        """Whether the loss looks at adversarial examples at all."""
        if self.attack == "none":
            return False
        return {"trades": self.beta > 0, "mart": True}.get(self.loss, self.adversarial_weight > 0)

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The configuration that `to_json` gave.

        Raises:
            ArgumentError: a name that this version does not know, or a value of another type.
        """
        known = {field.name: field for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                near = difflib.get_close_matches(name, known)
                hint = f"did you mean {' or '.join(near)}?" if near else ""
                raise ArgumentError("config", "names that this version knows", name, hint)
            default = known[name].default
            wanted = (str, type(None)) if default is None else (int, float) if type(default) is float else type(default)
            if not isinstance(value, wanted) or isinstance(value, bool):
                kind = getattr(known[name].type, "__name__", known[name].type)
                raise ArgumentError("config", f"{name} of type {kind}", repr(value))
        return cls(**values)
