"""Schedules: how long networks are trained, and on how much they are evaluated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smoothed.paper.declaration import NetworkSpec
from smoothed.paper.networks import WIDE


@dataclass(frozen=True, eq=False)
class PaperSchedule:
    """Sizes of training and evaluation.

    Attributes:
        name: name on the command line.
        about: what it is for.
        training: fields of `TrainingConfig` that differ from the recipes, for networks with new weights.
        fine_tuning: the same for networks that start from another one.
        architectures: architectures that it trains; networks of other architectures are left out.
        small_images: whether 64 images of 8 x 8 pixels take the place of the data sets, for tests.
        table_images: test images of a table's rows; None for all.
        table_runs: runs of a table's rows, each with a fresh attack and fresh draws.
        extra_runs: runs of rows under attacks that the paper's tables do not have.
        query_images: test images of query-based attacks, which cost more; None for all.
        query_runs: runs of query-based attacks.
        max_queries: queries per image, for each of which the classifier answers once.
        figure_images: test images of a figure's curves; None for all.
        figure_runs: runs of a figure's curves.
        figure_sigmas: standard deviations of sweeps, in the paper's unit.
        figure_counts: numbers of draws M of sweeps.
        tuning_images: held-out images that sigma is chosen on; None for all.
        tuning_sigmas: standard deviations that sigma is chosen from, in the paper's unit.
        tuning_samples: number of draws M with which sigma is chosen.
        precision: number format of the votes: `float32`, `bf16`, or `auto` for bf16 where the hardware supports it.
        max_samples: largest M; declarations with a larger one use this one. None for no limit.
        max_steps: largest number of attack steps; None for no limit.
    """

    name: str
    about: str
    training: Mapping[str, Any] = field(default_factory=dict)
    fine_tuning: Mapping[str, Any] = field(default_factory=dict)
    architectures: tuple[str, ...] = ("resnet20",)
    small_images: bool = False
    table_images: int | None = None
    table_runs: int = 5
    extra_runs: int = 5
    query_images: int | None = 1000
    query_runs: int = 1
    max_queries: int = 1000
    figure_images: int | None = None
    figure_runs: int = 1
    figure_sigmas: tuple[float, ...] = ()
    figure_counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    tuning_images: int | None = 1000
    tuning_sigmas: tuple[float, ...] = ()
    tuning_samples: int = 64
    precision: str = "float32"
    max_samples: int | None = None
    max_steps: int | None = None

    def training_of(self, network: NetworkSpec) -> dict[str, Any]:
        """Fields of `TrainingConfig` that differ from the network's recipe, without its parent."""
        of_schedule = self.training if network.parent is None else self.fine_tuning
        own = {"architecture": network.architecture, "data": network.data, **network.settings}
        found = {**own, **of_schedule, **network.overrides.get(self.name, {})}
        found.pop("parent", None)
        return found

    def trains(self, network: NetworkSpec) -> bool:
        """Whether it trains networks of this architecture."""
        return network.architecture in self.architectures

    def samples(self, count: int) -> int:
        """The number of draws M in place of `count`."""
        return count if self.max_samples is None else min(count, self.max_samples)

    def steps(self, count: int) -> int:
        """The number of attack steps in place of `count`."""
        return count if self.max_steps is None else min(count, self.max_steps)


def _hundredths(last: int, step: int) -> tuple[float, ...]:
    return tuple(value / 100 for value in range(0, last + 1, step))


FULL = PaperSchedule(
    "full",
    "the paper's: ResNet-20 for 400 epochs, fine-tuning for 200, Wide-ResNet-34-10 for 100; for GPUs",
    architectures=("resnet20", WIDE),
    figure_sigmas=_hundredths(50, 1),
    tuning_images=None,
    tuning_sigmas=_hundredths(50, 2),
)

# One cycle of the rate and an average of the weights make the most of few epochs. N-FGSM costs less than PGD-7 and
# attacks in the first 20 epochs.
_CYCLE = {"batch_size": 128, "schedule": "onecycle", "lr": 0.2, "weight_decay": 5e-4, "average": 0.999, "epochs": 25}
CPU = PaperSchedule(
    "cpu",
    "ResNet-20 for 25 epochs, 20 of them with N-FGSM, fine-tuning for 4; sized for two cores and some days",
    training={**_CYCLE, "nfgsm_warmup": 0.8},
    fine_tuning={**_CYCLE, "lr": 0.02, "average": 0.0, "epochs": 4},
    table_images=1000,
    extra_runs=2,
    query_images=200,
    figure_images=1000,
    figure_sigmas=_hundredths(50, 5),
    tuning_sigmas=_hundredths(50, 5),
    precision="auto",
)

_SECONDS = {
    **{"epochs": 1, "batch_size": 32, "attack_steps": 1, "eot_samples": 2, "architecture": "resnet20"},
    **{"validation_attack_images": 16, "precision": "float32", "lr": 0.02},
}
TINY = PaperSchedule(
    "tiny",
    "one epoch on 64 images of 8 x 8 pixels, for tests; its numbers mean nothing",
    training=_SECONDS,
    fine_tuning=_SECONDS,
    architectures=("resnet20", WIDE),
    small_images=True,
    table_images=32,
    table_runs=2,
    extra_runs=1,
    query_images=16,
    max_queries=120,
    figure_images=32,
    figure_sigmas=(0.0, 0.24),
    figure_counts=(1, 2, 4),
    tuning_images=32,
    tuning_sigmas=(0.0, 0.24),
    tuning_samples=4,
    max_samples=4,
    max_steps=2,
)

PAPER_SCHEDULES: dict[str, PaperSchedule] = {schedule.name: schedule for schedule in (FULL, CPU, TINY)}
"""All schedules by name."""
