"""What every benchmark shares: rows of {"name", "value", "goal", "holds"}, their table, and timing in turn."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from hardware import wait

# Seconds: an OpenMP thread spins for about 5 ms.
_REST = 0.03


@dataclass(frozen=True)
class Row:
    """A measured number.

    Attributes:
        name: what was measured, with its unit.
        value: the number; None where this machine can't measure it.
        goal: what it should be, in words; None for a number without a goal.
        holds: whether it is; None where there is no goal or no number.
    """

    name: str
    value: float | None
    goal: str | None = None
    holds: bool | None = None


def at_least(name: str, value: float | None, bound: float) -> Row:
    """A number that should not be below `bound`."""
    return Row(name, value, f">= {bound:g}", None if value is None else value >= bound)


def at_most(name: str, value: float | None, bound: float) -> Row:
    """A number that should not be above `bound`."""
    return Row(name, value, f"<= {bound:g}", None if value is None else value <= bound)


def within(name: str, value: float | None, low: float, high: float) -> Row:
    """A number that should lie between two others."""
    return Row(name, value, f"{low:g} to {high:g}", None if value is None else low <= value <= high)


def show(rows: Sequence[Row], path: Path | None) -> None:
    """Print the rows as a table, and write them as JSON."""
    table = Table("measured", "value", "goal", "holds")
    for row in rows:
        value = "" if row.value is None else f"{row.value:.3g}" if row.value < 1000 else f"{row.value:,.0f}"
        table.add_row(row.name, value, row.goal or "", {None: "", True: "yes", False: "NO"}[row.holds])
    Console(soft_wrap=True).print(table)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


def seconds_in_turn(
    actions: Sequence[Callable[[], object]], device: torch.device, repeats: int, warmup: int = 1
) -> list[float]:
    """The median seconds of each action, all run in turn `repeats` times, so that a noisy machine hits them alike.

    Each waits until the threads of the one before no longer spin in wait for work, as they may in another process.
    """
    taken: list[list[float]] = [[] for _ in actions]
    for repeat in range(warmup + repeats):
        for times, action in zip(taken, actions, strict=True):
            wait(device)
            time.sleep(_REST)
            begun = time.perf_counter()
            action()
            wait(device)
            if repeat >= warmup:
                times.append(time.perf_counter() - begun)
    return [statistics.median(times) for times in taken]
