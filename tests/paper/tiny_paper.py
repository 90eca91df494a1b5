"""A run of the tiny schedule, for a process of its own that may be killed."""

import os
import signal

import torch

from smoothed.paper.run import SilentObserver, run_paper
from smoothed.paper.schedules import TINY


class Killer(SilentObserver):
    """Kills the process at the given event; the beginning of a step and each progress are events."""

    def __init__(self, event, told):
        self.left, self.told = event, told

    def begin(self, step, *_):
        if self.told:
            print("began", step.name, flush=True)
        self.progress()

    def progress(self, *_):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main(out, names, kill_at=0, told=False):
    """Run declarations in a folder; 0 kills nothing. With `told`, it prints the steps that begin."""
    torch.set_num_threads(1)  # the order of a sum over threads is not promised
    outcome = run_paper(names, TINY, out, zoo="none", observer=Killer(kill_at, told), wait=0.2)
    print("finished" if outcome.finished else "stopped", outcome.done)
