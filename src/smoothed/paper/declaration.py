"""Declarations: which networks a table or figure needs, what is measured on them, and the paper's own numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

BENCHMARK_STEPS = 7
"""Attack steps (k) of the paper's ResNet-20 experiments."""

TUNED = "tuned"
"""Value of `sigma`: the one with the best robust accuracy on held-out images."""

Kind = Literal["best", "converged", "diverged"]
Abscissa = Literal["sigma_normalized", "budget", "radius"]


@dataclass(frozen=True)
class Published:
    """Accuracies that the paper prints, in percent; None where it prints none.

    Attributes:
        clean: accuracy on clean images.
        robust: accuracy under the attack.
        clean_std: standard deviation of `clean` over runs.
        robust_std: standard deviation of `robust` over runs.
        runs: number of runs behind the standard deviations.
    """

    clean: float | None = None
    robust: float | None = None
    clean_std: float | None = None
    robust_std: float | None = None
    runs: int = 5


@dataclass(frozen=True)
class NetworkSpec:
    """A network to train.

    Attributes:
        name: name of the network, and of its file in a zoo.
        recipe: key of `training.recipes.RECIPES`.
        title: name of the network in tables.
        data: data set, `cifar10` or `cifar100`.
        architecture: key of `models.ARCHITECTURES`.
        parent: name of the network that it is fine-tuned from; None for new weights.
        kind: checkpoint of the run: best robust validation accuracy, or best (`converged`) or worst (`diverged`) clean
            validation accuracy.
        run: name of the training run; None for `name`. Networks of one run are trained once.
        settings: fields of `TrainingConfig` that differ from the recipe in every schedule.
        overrides: further such fields by the name of the schedule. They come after those of the schedule itself. The
            key `parent` names another network to start from in this schedule.
    """

    name: str
    recipe: str
    title: str
    data: str = "cifar10"
    architecture: str = "resnet20"
    parent: str | None = None
    kind: Kind = "best"
    run: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def run_name(self) -> str:
        """Name of the training run."""
        return self.run or self.name

    @property
    def steps(self) -> int:
        """Attack steps with which the network's sigma is tuned: the paper's for its architecture."""
        return 10 if self.architecture.startswith("wide") else BENCHMARK_STEPS

    def parent_in(self, schedule: str) -> str | None:
        """Name of the network that it is fine-tuned from in the schedule of that name."""
        return self.overrides.get(schedule, {}).get("parent", self.parent)


@dataclass(frozen=True)
class Measurement:
    """An evaluation of a network on test images under one attack, from which several votes and Ms are read.

    Attributes:
        network: name of the network.
        sigma: standard deviation of the input noise in the paper's unit, or `tuned`. None evaluates single draws of the
            network without input noise.
        attack: name of the attack.
        steps: gradient steps of the attack (k).
        eot_samples: draws averaged for each gradient or each query of the attack.
        radius: L-infinity radius of the attack, in units of 1/255.
        mean: whether all noise is off (mean network).
        source: name of the network that a transfer attack starts from; None for a white-box or query-based attack.
        source_sigma: standard deviation of the input noise on the source, in the paper's unit; None for none.
    """

    network: str
    sigma: float | Literal["tuned"] | None = None
    attack: str = "pgd"
    steps: int = BENCHMARK_STEPS
    eot_samples: int = 1
    radius: float = 8
    mean: bool = False
    source: str | None = None
    source_sigma: float | None = None

    @property
    def name(self) -> str:
        """Name of its result."""
        attack = self.attack if self.attack == "nattack" else f"{self.attack}-{self.steps}"
        draws = "" if self.eot_samples == 1 else f"x{self.eot_samples}"
        parts = [self.network, attack + draws]
        if self.radius != 8:
            parts.append(f"eps-{self.radius:g}")
        if self.source is not None:
            noise = "" if self.source_sigma is None else f"-with-sigma-{self.source_sigma:g}"
            parts.append(f"from-{self.source}{noise}")
        if self.mean:
            parts.append("mean-network")
        elif self.sigma is None:
            parts.append("one-draw")
        else:
            parts.append(f"sigma-{self.sigma}" if self.sigma == TUNED else f"sigma-{self.sigma:g}")
        return ".".join(parts)

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of all networks that it needs."""
        return (self.network,) if self.source is None else (self.network, self.source)


@dataclass(frozen=True)
class SigmaSweep:
    """A sweep over sigma on test images, for figures.

    Attributes:
        network: name of the network.
        steps: gradient steps of PGD (k).
        votes: names of the votes. Those of the prediction vote alone stop earlier.
        num_samples: the only number of draws M; None for all Ms of the schedule.
    """

    network: str
    steps: int = BENCHMARK_STEPS
    votes: tuple[str, ...] = ("prediction",)
    num_samples: int | None = None

    @property
    def name(self) -> str:
        """Name of its result."""
        votes = "" if len(self.votes) == 1 else ".votes"
        draws = "" if self.num_samples is None else f".m-{self.num_samples}"
        return f"{self.network}.sweep-{self.steps}{votes}{draws}"

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of all networks that it needs."""
        return (self.network,)


@dataclass(frozen=True)
class RowSpec:
    """A row of a table.

    Attributes:
        label: name of the row, unique in its table.
        measurement: evaluation that it is read from; None for a method that is not implemented here.
        vote: name of the vote; None for single draws.
        num_samples: number of draws of the vote, the paper's M.
        published: the paper's numbers; None for a row that the paper does not have.
        against: labels of rows of the same table that it is compared with, image by image.
        group: part of the table that it belongs to.
        note: remark on the row.
        schedules: names of the schedules that have the row; empty for all.
    """

    label: str
    measurement: Measurement | None
    vote: str | None = None
    num_samples: int | None = None
    published: Published | None = None
    against: tuple[str, ...] = ()
    group: str = ""
    note: str = ""
    schedules: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableSpec:
    """A table.

    Attributes:
        name: name on the command line.
        title: what it shows.
        rows: its rows, in order.
        same_images: whether the paper measured on the same test images, so that a difference has no sampling error
            from the images if all of them are used.
        note: remark on the table.
    """

    name: str
    title: str
    rows: tuple[RowSpec, ...]
    same_images: bool = True
    note: str = ""

    def rows_in(self, schedule: str) -> tuple[RowSpec, ...]:
        """The rows of the schedule of that name."""
        return tuple(row for row in self.rows if not row.schedules or schedule in row.schedules)


@dataclass(frozen=True)
class CurveSpec:
    """A curve of a figure, read from the rows of one or several results.

    Attributes:
        label: name of the curve.
        sources: results whose rows are its points.
        vote: name of the vote.
        num_samples: number of draws of the vote, the paper's M.
        published: points that the paper's tables print, by the value on the x axis.
        starts_clean: whether a first point at 0 is the clean accuracy (radius 0).
    """

    label: str
    sources: tuple[Measurement | SigmaSweep, ...]
    vote: str
    num_samples: int
    published: Mapping[float, Published] = field(default_factory=dict)
    starts_clean: bool = False


@dataclass(frozen=True)
class PanelSpec:
    """A panel of a figure.

    Attributes:
        title: title of the panel.
        accuracy: accuracy on the y axis.
        curves: its curves.
    """

    title: str
    accuracy: Literal["clean", "robust"]
    curves: tuple[CurveSpec, ...]


@dataclass(frozen=True)
class FigureSpec:
    """A figure.

    Attributes:
        name: name on the command line.
        title: what it shows.
        panels: its panels, from left to right.
        x: quantity on the x axis: sigma in the paper's unit, the gradients of an attack (k times draws), or the radius
            in units of 1/255.
        note: remark on the figure.
    """

    name: str
    title: str
    panels: tuple[PanelSpec, ...]
    x: Abscissa = "sigma_normalized"
    note: str = ""


@dataclass(frozen=True)
class AppendixSpec:
    """A calculation without networks.

    Attributes:
        name: name on the command line.
        title: what it shows.
    """

    name: str
    title: str


AnySpec = TableSpec | FigureSpec | AppendixSpec
AnySource = Measurement | SigmaSweep


def sources_of(spec: AnySpec, schedule: str) -> list[AnySource]:
    """The evaluations that a declaration needs in a schedule, in order and without repetition."""
    if isinstance(spec, TableSpec):
        found: list[AnySource | None] = [row.measurement for row in spec.rows_in(schedule)]
    elif isinstance(spec, FigureSpec):
        found = [source for panel in spec.panels for curve in panel.curves for source in curve.sources]
    else:
        found = []
    return list(dict.fromkeys(source for source in found if source is not None))
