"""The whole configuration of a training run, as plain values: what a card stores and a run repeats."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from smoothed.attacks import ATTACKS
from smoothed.checks import check_choice, check_fraction, check_not_negative, check_positive
from smoothed.errors import ArgumentError
from smoothed.injection import PRESETS
from smoothed.models import ARCHITECTURES
from smoothed.training.schedules import SCHEDULES


@dataclass(frozen=True)
class TrainingConfig:
    """What to train and how. Defaults are the paper's ResNet-20 on CIFAR-10 (FACTS, training).

    Attributes:
        data: `cifar10` or `cifar100`.
        architecture: a key of `models.ARCHITECTURES`.
        injection: a key of `injection.PRESETS`.
        injection_strength: factor on the deviation the learned noise starts with, the law's own or that of `start`;
            short runs learn faster from less.
        start: the checkpoint to fine-tune, a bundled name or a path; None starts anew.
        attack: what makes the adversarial examples, a key of `attacks.ATTACKS`.
        eps: the attack's radius in pixel units of [0, 1].
        attack_steps: its steps, the paper's k (single-step attacks ignore it).
        attack_samples: draws for each of its gradients, the paper's M (attacks on one draw ignore it).
        adversarial_weight: w of eq. 6; at 1 the clean term is gone, at 0 the attack.
        epochs: passes over the training part.
        batch_size: images of one step.
        schedule: of the learning rate, a key of `schedules.SCHEDULES`.
        lr: its peak.
        noise_lr: factor on it for the noise strengths, whose gradients are the noisier the higher the rate.
        momentum: of SGD, Nesterov's.
        weight_decay: on every parameter.
        average: decay of the exponential weight average that is evaluated and kept; 0 keeps the weights themselves.
        precision: `float32` or `bf16` (mixed).
        seed: of everything random.
        validation_attack_images: how many validation images PGD-7 attacks after each epoch.
    """

    data: str = "cifar10"
    architecture: str = "resnet20"
    injection: str = "cni-w"
    injection_strength: float = 1.0
    start: str | None = None
    attack: str = "pgd"
    eps: float = 8 / 255
    attack_steps: int = 7
    attack_samples: int = 8
    adversarial_weight: float = 0.5
    epochs: int = 400
    batch_size: int = 256
    schedule: str = "steps"
    lr: float = 0.1
    noise_lr: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    average: float = 0.0
    precision: str = "float32"
    seed: int = 0
    validation_attack_images: int = 1000

    def __post_init__(self) -> None:
        check_choice(self.data, ("cifar10", "cifar100"), "data")
        check_choice(self.architecture, ARCHITECTURES, "architecture")
        check_choice(self.injection, PRESETS, "injection")
        check_choice(self.attack, ATTACKS, "attack")
        check_choice(self.schedule, SCHEDULES, "schedule")
        check_choice(self.precision, ("float32", "bf16"), "precision")
        for name in ("attack_steps", "attack_samples", "epochs", "batch_size", "validation_attack_images"):
            check_positive(getattr(self, name), name)
        for name in ("injection_strength", "eps", "lr", "noise_lr", "momentum", "weight_decay"):
            check_not_negative(getattr(self, name), name)
        for name in ("adversarial_weight", "average"):
            check_fraction(getattr(self, name), name)

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The configuration that `to_json` gave.

        Raises:
            ArgumentError: a name that this version does not know.
        """
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ArgumentError("config", "names that this version knows", ", ".join(sorted(unknown)))
        return cls(**values)
