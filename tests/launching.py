"""Processes that tests start: two that share a work, with the launcher or without, and some that are to be killed.

All but the launcher's are forked from a server that has imported torch, which alone would take each of them seconds.
"""

import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

from smoothed.cli.main import main

# Two processes on two CPUs: Accelerate's own word for that needs MPI.
LAUNCH = (
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

_forked = multiprocessing.get_context("forkserver")
_forked.set_forkserver_preload(["accelerate", "scipy.stats", "smoothed.smoothing.classifier", "smoothed.training.loop"])


class Ended(NamedTuple):
    """What processes printed, one after the other, and the exit code of the worst."""

    returncode: int
    stdout: str
    stderr: str


class Started:
    """Processes at work on `function(*arguments)`, which the server imports by its name."""

    def __init__(self, function, *arguments, environments=({},)):
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        self._printed = [(folder / f"out.{rank}", folder / f"err.{rank}") for rank in range(len(environments))]
        for path in (path for paths in self._printed for path in paths):
            path.touch()
        self.processes = [
            _forked.Process(target=_work, args=(function, arguments, environment, *map(str, printed)))
            for environment, printed in zip(environments, self._printed, strict=True)
        ]
        for process in self.processes:
            process.start()

    @property
    def running(self):
        return all(process.is_alive() for process in self.processes)

    def kill(self):
        """SIGKILL to all of them."""
        for process in self.processes:
            process.kill()
        return self.end()

    def end(self):
        """Wait until all have ended; where one fails the others are told to stop, as by a launcher."""
        while running := [process for process in self.processes if process.is_alive()]:
            wait([process.sentinel for process in running])
            if any(process.exitcode for process in self.processes):
                for process in running:
                    process.terminate()
        outs, errs = ("".join(path.read_text() for path in paths) for paths in zip(*self._printed, strict=True))
        self._folder.cleanup()
        codes = [process.exitcode for process in self.processes]
        return Ended(max(codes, key=abs), outs, errs)


def start_two(function, *arguments):
    """Two processes that meet as those of a launcher do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environments = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return Started(function, *arguments, environments=environments)


def by_two(*arguments):
    """The command, by two processes, once it has ended."""
    return start_two(command, *map(str, arguments)).end()


def run_script(path, *arguments):
    """What `python path arguments` does."""
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")


def command(*arguments):
    """What `smoothed arguments` does."""
    sys.argv = ["smoothed", *arguments]
    main([*arguments])


def _work(function, arguments, environment, out, err):
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.environ.update({**environment, "CUDA_VISIBLE_DEVICES": ""})
    function(*arguments)
