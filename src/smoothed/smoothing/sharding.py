"""One vote by several processes: they share the images, or the draws where there are fewer images than processes."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from smoothed.smoothing.sampling import Ballot, Drawer, count_votes
from smoothed.smoothing.tally import Tally
from smoothed.utils.distributed import Processes

Tallies = dict[str, dict[int, Tally]]


def share_votes(drawer: Drawer, inputs: Tensor, ballot: Ballot, processes: Processes) -> Tallies:
    """What `count_votes` gives, from all processes together, and to all of them.

    Noise is a function of (seed, draw, image), so it is what one process gives, to the rounding of sums. Where draws
    are shared, all of them are made: no process alone could tell when to stop.

    Raises:
        ProcessError: another process is gone.
    """
    if processes.count == 1:
        return count_votes(drawer, inputs, ballot)
    share = _share_images if len(inputs) >= processes.count else _share_draws
    return _moved(share(drawer, inputs, ballot, processes), inputs.device)


def _share_images(drawer: Drawer, inputs: Tensor, ballot: Ballot, processes: Processes) -> Tallies:
    start, end = _span(len(inputs), processes)
    own = replace(drawer, first_image=drawer.first_image + start)
    parts = processes.gather(_moved(count_votes(own, inputs[start:end], ballot), "cpu"))
    return {
        name: {
            total: Tally(
                torch.cat([part[name][total].scores for part in parts]),
                torch.cat([part[name][total].num_samples for part in parts]),
            )
            for total in ballot.at
        }
        for name in ballot.votes
    }


def _share_draws(drawer: Drawer, inputs: Tensor, ballot: Ballot, processes: Processes) -> Tallies:
    start, end = _span(max(ballot.at), processes)
    # Of the first M draws, those that fall to this process; there may be none.
    own = {total: min(total, end) - start for total in ballot.at if min(total, end) > start}
    drawer = replace(drawer, first_draw=drawer.first_draw + start)
    asked = replace(ballot, at=sorted(set(own.values())), stop=None)
    made = _moved(count_votes(drawer, inputs, asked), "cpu") if own else {}
    parts = processes.gather({name: {total: made[name][size] for total, size in own.items()} for name in made})
    return {
        name: {total: _sum([part[name][total] for part in parts if total in part.get(name, {})]) for total in ballot.at}
        for name in ballot.votes
    }


def _sum(tallies: Sequence[Tally]) -> Tally:
    """In the order of the draws."""
    return Tally(sum(tally.scores for tally in tallies), sum(tally.num_samples for tally in tallies))  # pyright: ignore[reportArgumentType]


def _span(length: int, processes: Processes) -> tuple[int, int]:
    """What of 0 .. `length` falls to this process: spans that follow each other and differ by one at most."""
    return length * processes.rank // processes.count, length * (processes.rank + 1) // processes.count


def _moved(tallies: Tallies, device: torch.device | str) -> Tallies:
    return {
        name: {
            total: Tally(tally.scores.detach().to(device), tally.num_samples.to(device))
            for total, tally in by_total.items()
        }
        for name, by_total in tallies.items()
    }
