"""Best settings of a sweep, with significance tests against other settings on the same images and noise.

The best setting is selected by its result, so its accuracy and its tests against other settings are slightly
optimistic. The confidence sets (`may_be_best`) account for the selection. Report the accuracy of the selected setting
on other images.
"""

from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from smoothed.evaluation.sweep.paired import Comparison, may_be_best
from smoothed.evaluation.sweep.sweep import Cell, Sweep


@dataclass(frozen=True)
class Peak:
    """The best sigma of one vote at one M.

    Attributes:
        cell: accuracy at the best sigma.
        candidates: sigmas that may be the best, ascending: the 95 % confidence set of `may_be_best`.
        versus: comparisons of the best sigma with its neighbours and with sigma 0 (if it was swept), by the other
            sigma.
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
            "accuracy": asdict(self.cell.criterion),
            "may_be_best": self.candidates,
            "versus": [{"sigma": sigma, **comparison.to_json()} for sigma, comparison in self.versus.items()],
        }


@dataclass(frozen=True)
class Best:
    """The best cell of a sweep, with the Ms and the votes that may be as good.

    Attributes:
        peak: the best sigma, at the vote and M of the best cell.
        num_samples: every M that may be the best at the cell's sigma and vote (95 % confidence set).
        votes: every vote that may be the best at the cell's sigma and M (95 % confidence set).
    """

    peak: Peak
    num_samples: tuple[int, ...]
    votes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The best cell as JSON values."""
        candidates = {"num_samples_that_may_be_best": self.num_samples, "votes_that_may_be_best": self.votes}
        return {**self.peak.to_json(), **candidates}


def find_peaks(sweep: Sweep, cells: list[Cell]) -> list[Peak]:
    """The best sigma of each vote and M, by the sweep's criterion; ties go to the smallest sigma.

    Args:
        sweep: result of a sweep.
        cells: cells of the sweep, in the order of `Sweep.cells`.
    """
    groups = [cells[start : start + len(sweep.sigmas)] for start in range(0, len(cells), len(sweep.sigmas))]
    return [_peak(sweep, group) for group in groups]


def find_best(sweep: Sweep, peaks: list[Peak]) -> Best:
    """The best of all cells; ties go to the fewest draws, then to the smallest sigma, then to the first vote."""
    peak = max(peaks, key=lambda peak: (peak.cell.criterion.mean, -peak.cell.num_samples, -peak.cell.sigma))
    sigma, vote, count = _cell_indices(sweep, peak.cell)
    counts = may_be_best(sweep.criterion[sigma, vote])
    votes = may_be_best(sweep.criterion[sigma, :, count])
    return Best(peak, _select(sweep.num_samples, counts), _select(sweep.votes, votes))


def _peak(sweep: Sweep, cells: list[Cell]) -> Peak:
    """The peak among the cells of one vote and M, which are in ascending order of sigma."""
    best = max(cells, key=lambda cell: (cell.criterion.mean, -cell.sigma))
    sigma, vote, count = _cell_indices(sweep, best)
    right = sweep.criterion[:, vote, count]
    others = {other for other in (sigma - 1, sigma + 1) if 0 <= other < len(cells)}
    if cells[0].sigma == 0:
        others.add(0)
    versus = {cells[other].sigma: Comparison.of(right[sigma], right[other]) for other in sorted(others - {sigma})}
    return Peak(best, _select(sweep.sigmas, may_be_best(right)), versus)


def _cell_indices(sweep: Sweep, cell: Cell) -> tuple[int, int, int]:
    """Indices of the cell's sigma, vote and M."""
    return (
        sweep.sigmas.index(cell.sigma),
        sweep.votes.index(cell.vote),
        sweep.num_samples.index(cell.num_samples),
    )


def _select(values: tuple[Any, ...], mask: Bool[Tensor, " values"]) -> tuple[Any, ...]:
    return tuple(value for value, selected in zip(values, mask.tolist(), strict=True) if selected)
