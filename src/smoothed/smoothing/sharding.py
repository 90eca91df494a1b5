"""Distribute a vote over processes: they divide the images, or the draws if images are fewer than processes."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from smoothed.smoothing.sampling import Sampler, VoteRequest, count_votes
from smoothed.smoothing.tally import Tally
from smoothed.utils.distributed import Processes

Tallies = dict[str, dict[int, Tally]]


def count_votes_sharded(sampler: Sampler, inputs: Tensor, request: VoteRequest, processes: Processes) -> Tallies:
    """Run `count_votes` on all processes together; every process receives all tallies.

    Noise is a function of (seed, draw, image), so tallies equal those of a single process up to the rounding of sums.
    When processes divide the draws, all draws are made, because no process alone can decide when to stop.

    Args:
        sampler: computes the draws; the same in every process.
        inputs: all images in [0, 1], (N, C, H, W); the same in every process.
        request: the votes to take.
        processes: processes that share the work.

    Returns:
        Tallies as of `count_votes`, on the inputs' device and detached from the graph if several processes took part.

    Raises:
        ProcessError: another process has exited.
    """
    if processes.count == 1:
        return count_votes(sampler, inputs, request)
    count_shard = _divide_images if len(inputs) >= processes.count else _divide_draws
    return _to_device(count_shard(sampler, inputs, request, processes), inputs.device)


def _divide_images(sampler: Sampler, inputs: Tensor, request: VoteRequest, processes: Processes) -> Tallies:
    start, end = shard_of(len(inputs), processes)
    shard_sampler = replace(sampler, first_image=sampler.first_image + start)
    parts = processes.gather(_to_device(count_votes(shard_sampler, inputs[start:end], request), "cpu"))
    return {
        name: {
            total: Tally(
                torch.cat([part[name][total].scores for part in parts]),
                torch.cat([part[name][total].num_samples for part in parts]),
            )
            for total in request.num_samples
        }
        for name in request.votes
    }


def _divide_draws(sampler: Sampler, inputs: Tensor, request: VoteRequest, processes: Processes) -> Tallies:
    start, end = shard_of(max(request.num_samples), processes)
    # By M: how many of the first M draws belong to this process. An M without draws here is left out.
    shard_sizes = {total: min(total, end) - start for total in request.num_samples if min(total, end) > start}
    sampler = replace(sampler, first_draw=sampler.first_draw + start)
    shard_request = replace(request, num_samples=sorted(set(shard_sizes.values())), stop=None)
    tallies = _to_device(count_votes(sampler, inputs, shard_request), "cpu") if shard_sizes else {}
    parts = processes.gather(
        {name: {total: tallies[name][size] for total, size in shard_sizes.items()} for name in tallies}
    )
    return {
        name: {
            total: _sum_tallies([part[name][total] for part in parts if total in part.get(name, {})])
            for total in request.num_samples
        }
        for name in request.votes
    }


def _sum_tallies(tallies: Sequence[Tally]) -> Tally:
    """Add tallies of disjoint draws, in the order of the draws."""
    return Tally(sum(tally.scores for tally in tallies), sum(tally.num_samples for tally in tallies))  # pyright: ignore[reportArgumentType]


def shard_of(length: int, processes: Processes) -> tuple[int, int]:
    """This process's range (start, end) of `length` items; the sizes of the ranges differ by at most one."""
    return length * processes.rank // processes.count, length * (processes.rank + 1) // processes.count


def _to_device(tallies: Tallies, device: torch.device | str) -> Tallies:
    return {
        name: {
            total: Tally(tally.scores.detach().to(device), tally.num_samples.to(device))
            for total, tally in by_total.items()
        }
        for name, by_total in tallies.items()
    }
