"""How tests start several processes that share a work."""

import os
import subprocess
import sys

# Two processes on two CPUs: Accelerate's own word for that needs MPI.
LAUNCH = (
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def by_two(*arguments):
    """The command, by two processes, once it has ended."""
    command = [*LAUNCH, "-m", "smoothed", *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=200)
