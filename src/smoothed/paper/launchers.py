"""Launchers: several processes, on one machine or on a cluster, that work in the folder of one run."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from smoothed.errors import ArgumentError

Command = Sequence[str]


def start_local(command: Command, workers: int, logs: Path, wait: Callable[[Sequence[int | None]], None]) -> list[int]:
    """Run `workers` copies of a command side by side, and return their exit codes.

    Each has its share of the CPU cores (`OMP_NUM_THREADS`, unless it is set) and one of the GPUs in turn. Ctrl-C is
    passed on to all, which store what they have.

    Args:
        command: the command and its arguments.
        workers: number of processes.
        logs: folder for the output of each, `worker-N.log`.
        wait: called repeatedly with the exit code of each process (None while it runs); it has to sleep between checks.
    """
    logs.mkdir(parents=True, exist_ok=True)
    processes = list[subprocess.Popen[bytes]]()
    try:
        for number in range(workers):
            with (logs / f"worker-{number}.log").open("ab") as log:
                environment = worker_environment(number, workers, os.environ)
                processes.append(
                    subprocess.Popen(  # noqa: S603 - the command is this program's own
                        command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
                    )
                )
        while any(process.poll() is None for process in processes):
            wait([process.returncode for process in processes])
    except BaseException:
        for process in processes:
            process.send_signal(signal.SIGINT)
        raise
    finally:
        for process in processes:
            process.wait()
    return [process.returncode for process in processes]


def worker_environment(number: int, workers: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of process `number` of `workers`: its share of the cores, and one GPU if there are any."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    made = {"OMP_NUM_THREADS": str(threads), **environment}
    gpus = torch.cuda.device_count()
    if gpus:
        visible = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = visible if len(visible) >= gpus else [str(gpu) for gpu in range(gpus)]
        made["CUDA_VISIBLE_DEVICES"] = names[number % gpus]
    return made


def accelerate_command(command: Command, workers: int) -> list[str]:
    """The command that starts `workers` processes on this machine which share the work of each step.

    Args:
        command: `python -m module` and its arguments.
        workers: number of processes.
    """
    assert command[1] == "-m"  # noqa: S101
    launcher = [command[0], "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    return [*launcher, "-m", *command[2:]]


def submit(command: Command, workers: int, logs: Path, settings: Mapping[str, str | int], cluster: str) -> list[str]:
    """Submit `workers` jobs with a command and return their names; needs submitit.

    Args:
        command: the command and its arguments.
        workers: number of jobs.
        logs: folder for the scripts and the output of the jobs.
        settings: options of sbatch, such as `partition` or `time`, by name; `timeout_min` for the time in minutes.
        cluster: `slurm`, or `local` for processes on this machine.

    Raises:
        ArgumentError: submitit is not installed, Slurm is not there, or it refuses the settings.
    """
    try:
        import submitit  # noqa: PLC0415 - an optional dependency
        from submitit.core.utils import FailedJobError  # noqa: PLC0415
    except ImportError:
        hint = 'pip install "smoothed[cluster]"'
        raise ArgumentError("launcher", "submitit for slurm", "an environment without it", hint) from None
    own = ("timeout_min", "gpus_per_node", "cpus_per_task", "mem_gb", "name")
    named = {key if key in own else f"slurm_{key}": value for key, value in settings.items()}
    try:
        executor = submitit.AutoExecutor(folder=str(logs), cluster=cluster)
        executor.update_parameters(name="smoothed-paper", **named)
        with executor.batch():
            jobs = [executor.submit(submitit.helpers.CommandFunction(list(command))) for _ in range(workers)]
    except (RuntimeError, TypeError, ValueError, NameError, FailedJobError) as error:
        hint = "run this where sbatch and srun work, or use --launcher local"
        expected = "a Slurm cluster that takes these settings"
        raise ArgumentError("launcher", expected, f"an error ({str(error).splitlines()[0]})", hint) from None
    return [str(job.job_id) for job in jobs]


def worker_command(arguments: Sequence[str]) -> list[str]:
    """The command of a worker: this program's own, with these arguments."""
    return [sys.executable, "-m", "smoothed", *arguments]
