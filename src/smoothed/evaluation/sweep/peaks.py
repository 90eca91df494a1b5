"""Where a sweep peaks, and whether the peak can be told from what surrounds it, on the same images and noise.

The best setting is picked by its result, so its accuracy is a little too good, and so are tests of it against others.
The sets of settings that may be the best allow for that; the number that is reported belongs to other images.
"""

from dataclasses import asdict, dataclass
from typing import Any

from smoothed.evaluation.sweep.paired import Comparison, may_be_best
from smoothed.evaluation.sweep.sweep import Cell, Sweep


@dataclass(frozen=True)
class Peak:
    """The best sigma of one vote at one M.

    Attributes:
        cell: its accuracy.
        candidates: sigmas that may be the best, in ascending order: 95 % sets of `may_be_best`.
        versus: by sigma, how it compares with no input noise (0, if that was swept) and with its neighbours.
    """

    cell: Cell
    candidates: tuple[float, ...]
    versus: dict[float, Comparison]

    def to_json(self) -> dict[str, Any]:
        """The peak as JSON values."""
        return {
            "vote": self.cell.vote,
            "num_samples": self.cell.num_samples,
            "sigma": self.cell.sigma,
            "accuracy": asdict(self.cell.judged),
            "may_be_best": self.candidates,
            "versus": [{"sigma": sigma, **comparison.to_json()} for sigma, comparison in self.versus.items()],
        }


@dataclass(frozen=True)
class Best:
    """The best of all cells, and what may be as good.

    Attributes:
        peak: its vote and M at all sigmas.
        num_samples: every M that may be the best of its sigma and vote.
        votes: likewise, of its sigma and M.
    """

    peak: Peak
    num_samples: tuple[int, ...]
    votes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        others = {"num_samples_that_may_be_best": self.num_samples, "votes_that_may_be_best": self.votes}
        return {**self.peak.to_json(), **others}


def find_peaks(sweep: Sweep, cells: list[Cell]) -> list[Peak]:
    """The best sigma of each vote and M, the smallest of equals; by accuracy under attack, where there was one.

    Args:
        sweep: what was found.
        cells: its cells.
    """
    groups = [cells[start : start + len(sweep.sigmas)] for start in range(0, len(cells), len(sweep.sigmas))]
    return [_peak(sweep, group) for group in groups]


def find_best(sweep: Sweep, peaks: list[Peak]) -> Best:
    """The best of all cells: of equals the one with the fewest draws, the smallest sigma, the vote named first."""
    peak = max(peaks, key=lambda peak: (peak.cell.judged.mean, -peak.cell.num_samples, -peak.cell.sigma))
    i, j, k = _place(sweep, peak.cell)
    at = may_be_best(sweep.judged[i, j])
    votes = may_be_best(sweep.judged[i, :, k])
    return Best(peak, _chosen(sweep.num_samples, at), _chosen(sweep.votes, votes))


def _peak(sweep: Sweep, cells: list[Cell]) -> Peak:
    """Of the cells of one vote and M, in the order of sigma."""
    best = max(cells, key=lambda cell: (cell.judged.mean, -cell.sigma))
    place, vote, count = _place(sweep, best)
    right = sweep.judged[:, vote, count]
    others = {other for other in (place - 1, place + 1) if 0 <= other < len(cells)}
    if cells[0].sigma == 0:
        others.add(0)
    versus = {cells[other].sigma: Comparison.of(right[place], right[other]) for other in sorted(others - {place})}
    return Peak(best, _chosen(sweep.sigmas, may_be_best(right)), versus)


def _place(sweep: Sweep, cell: Cell) -> tuple[int, int, int]:
    return (
        sweep.sigmas.index(cell.sigma),
        sweep.votes.index(cell.vote),
        sweep.num_samples.index(cell.num_samples),
    )


def _chosen(values: tuple[Any, ...], which: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a tensor of bools
    return tuple(value for value, chosen in zip(values, which.tolist(), strict=True) if chosen)
