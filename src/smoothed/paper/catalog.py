"""All declarations by name, and the votes and Ms that each shared evaluation has to contain."""

from dataclasses import dataclass
from functools import lru_cache

from smoothed.errors import ArgumentError
from smoothed.paper.declaration import (
    AnySource,
    AnySpec,
    AppendixSpec,
    Measurement,
    SigmaSweep,
    TableSpec,
    sources_of,
)
from smoothed.paper.figures import FIGURES
from smoothed.paper.schedules import PaperSchedule
from smoothed.paper.tables import TABLES

APPENDIX_A = AppendixSpec("appendix-a", "A support vector machine under attack, with and without noise on its input")


def _by_name(specs: tuple[AnySpec, ...]) -> dict[str, AnySpec]:
    declared: dict[str, AnySpec] = {}
    for spec in specs:
        if spec.name in declared:
            raise ArgumentError("declarations", "unique names", f"two declarations named {spec.name}")
        declared[spec.name] = spec
    return declared


DECLARATIONS: dict[str, AnySpec] = _by_name((*TABLES, *FIGURES, APPENDIX_A))
"""All tables, figures and the appendix by name."""

USUAL_COUNTS = (1, 8, 64)
"""Values of M that an evaluation reports in addition to those of its rows.

They are used up to the largest M of the rows, and not under NAttack.
"""


@dataclass(frozen=True)
class ReadOff:
    """The votes and Ms that are read from one evaluation.

    Attributes:
        votes: names of the votes; none for single draws.
        num_samples: numbers of draws M, ascending; none for single draws.
    """

    votes: tuple[str, ...]
    num_samples: tuple[int, ...]


def read_off(measurement: Measurement, schedule: PaperSchedule) -> ReadOff:
    """Votes and Ms of an evaluation that all declarations together need, so that one result serves all of them."""
    wanted = _wanted(schedule)[measurement]
    votes = tuple(dict.fromkeys(vote for vote, _ in wanted))
    largest = max((count for _, count in wanted), default=0)
    usual = {count for count in USUAL_COUNTS if count <= largest and measurement.attack != "nattack"}
    return ReadOff(votes, tuple(sorted({count for _, count in wanted} | usual)))


def sweep_counts(sweep: SigmaSweep, schedule: PaperSchedule) -> tuple[int, ...]:
    """The numbers of draws M of a sweep."""
    return schedule.figure_counts if sweep.num_samples is None else (schedule.samples(sweep.num_samples),)


def is_of_a_table(measurement: Measurement, schedule: PaperSchedule) -> bool:
    """Whether a row of a table is read from an evaluation, and not only points of figures."""
    return measurement in _of_tables(schedule)


@lru_cache
def _of_tables(schedule: PaperSchedule) -> frozenset[AnySource]:
    tables = [spec for spec in DECLARATIONS.values() if isinstance(spec, TableSpec)]
    return frozenset(source for table in tables for source in sources_of(table, schedule.name))


@lru_cache
def _wanted(schedule: PaperSchedule) -> dict[AnySource, list[tuple[str, int]]]:
    """The votes with their Ms that declarations read from each evaluation."""
    wanted: dict[AnySource, list[tuple[str, int]]] = {}
    for spec in DECLARATIONS.values():
        for source in sources_of(spec, schedule.name):
            wanted.setdefault(source, [])
        if isinstance(spec, TableSpec):
            pairs = [(row.measurement, row.vote, row.num_samples) for row in spec.rows_in(schedule.name)]
        elif isinstance(spec, AppendixSpec):
            pairs = []
        else:
            curves = [curve for panel in spec.panels for curve in panel.curves]
            pairs = [(source, curve.vote, curve.num_samples) for curve in curves for source in curve.sources]
        for source, vote, count in pairs:
            if source is not None and vote is not None and count is not None:
                wanted[source].append((vote, schedule.samples(count)))
    return wanted
