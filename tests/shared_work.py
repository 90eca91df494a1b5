"""Works of seconds for several processes: `python shared_work.py WORK FOLDER`; each writes what it knows at the end."""

import json
import os
import sys
import time
from pathlib import Path

import torch

from smoothed import Gaussian, Smoothed
from smoothed.errors import SmoothedError
from smoothed.utils.distributed import Processes, leaving_process_group


def divides(processes):
    """Lists of work of several lengths, and what of them was done here."""
    own = []
    divided = [
        processes.divide([lambda i=i: (own.append(i), i * i)[1] for i in range(count)]) for count in (0, 1, 2, 7)
    ]
    return {"divided": divided, "own": own}


def linear(inputs):
    """Three classes, of which one or the other wins far from the middle."""
    margin = inputs.flatten(1) @ torch.linspace(-1, 1, inputs[0].numel())
    return torch.stack([torch.zeros_like(margin), margin, -margin], 1)


def votes(processes):
    """Tallies of more images than processes, of fewer, and of some that stop early: of the second process, none."""
    images = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    # Far from the boundary, then near it.
    images[:4] = 0.5 + 0.5 * torch.linspace(-1, 1, 192).view(3, 8, 8)
    smoothed = Smoothed(linear, Gaussian(0.5), chunk_size=4, pack_draws=True)
    told = {}
    for name, rows, stop in (("many", 7, None), ("stopped", 7, "exact"), ("one", 1, None)):
        generator = torch.Generator().manual_seed(3)
        tallies = smoothed.tally(images[:rows], (5, 40), stop=stop, generator=generator, processes=processes)
        told |= {
            f"{name} {vote} {total}": (tally.scores.tolist(), tally.num_samples.tolist())
            for vote, by_total in tallies.items()
            for total, tally in by_total.items()
        }
    return told


def waits(processes):
    """The first process waits for the second, which does not come."""
    if processes.rank:
        time.sleep(60)
    return processes.gather(None)


def computes(processes):
    """Both are busy by themselves."""
    time.sleep(60)
    return processes.gather(None)


WORKS = {work.__name__: work for work in (divides, votes, waits, computes)}


def main(work, folder):
    rank = os.environ["RANK"]
    torch.set_num_threads(1)
    try:
        with leaving_process_group():
            processes = Processes.started()
            (Path(folder) / f"pid.{rank}").write_text(str(os.getpid()))
            told = WORKS[work](processes)
    except SmoothedError as error:
        told = {"error": str(error)}
    (Path(folder) / f"{work}.{rank}.json").write_text(json.dumps(told))
    if "error" in told:
        sys.exit(2)


if __name__ == "__main__":
    main(*sys.argv[1:])
