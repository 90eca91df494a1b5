"""Several processes in one folder: each step is done once, and the rows are those of one process."""

import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import tiny_paper

from launching import ENVIRONMENT, Started
from smoothed import ArgumentError
from smoothed.cli import paper as command
from smoothed.cli.main import main
from smoothed.evaluation.results import Result
from smoothed.paper import launchers
from smoothed.paper.run import run_paper
from smoothed.paper.schedules import TINY

EVALUATIONS = ["table-3a"]
NETWORKS = ["cni-w", "cni-w-source"]


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["paper", "run", *map(str, arguments)])
    return ended.value.code


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run in one process."""
    out = tmp_path_factory.mktemp("paper") / "alone"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert run_paper(EVALUATIONS, TINY, out, zoo="none").finished
    torch.set_num_threads(before)
    return out


def networks_of(alone, out):
    """A new folder with the trained networks of another one."""
    assert run_paper([], TINY, out, zoo="none", time_limit=0.0).done == 0  # writes the folder's record
    shutil.copytree(alone / "networks", out / "networks")
    return out


def require_same_results(folder, other):
    names = sorted(path.name for path in (folder / "results").glob("*.json"))
    assert names
    assert names == sorted(path.name for path in (other / "results").glob("*.json"))
    for name in names:
        first, second = (Result.load(each / "results" / name) for each in (folder, other))
        assert first.rows == second.rows
        assert first.model == second.model
        assert all(torch.equal(first.tensors[key], second.tensors[key]) for key in first.tensors)


@pytest.mark.slow
def test_two_runs_share_a_folder_and_do_each_step_once(alone, tmp_path):
    out = tmp_path / "shared"
    both = Started(partial(tiny_paper.main, str(out), EVALUATIONS, told=True), environments=({}, {})).end()
    assert both.returncode == 0, both.stderr
    lines = both.stdout.splitlines()
    assert sorted(line for line in lines if line.startswith("began")) == sorted(
        f"began {name}"
        for name in ("train cni-w", "train cni-w-source", *(path.stem for path in (alone / "results").glob("*.json")))
    )
    assert [line for line in lines if line.startswith("finished")] == ["finished 4"] * 2
    require_same_results(alone, out)


@pytest.mark.slow
def test_a_killed_run_leaves_its_step_to_the_next(alone, tmp_path):
    out = tmp_path / "shared"
    killed = Started(partial(tiny_paper.main, str(out), EVALUATIONS, 2)).end()  # in the first training
    assert killed.returncode < 0
    assert list((out / "locks").iterdir())
    done = Started(partial(tiny_paper.main, str(out), EVALUATIONS)).end()
    assert done.stdout == "finished 4\n", done.stderr
    require_same_results(alone, out)


@pytest.mark.slow
def test_two_nodes_of_torchrun_give_the_rows_of_one_process(alone, tmp_path):
    out = networks_of(alone, tmp_path / "nodes")
    port = 29_000 + hash(str(tmp_path)) % 1_000
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    told = ["-m", "smoothed", "paper", "run", *EVALUATIONS, "--schedule", "tiny", "--out", str(out), "--zoo", "none"]
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *options, "--node-rank", str(rank), *told],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [node.communicate()[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert sum("4 of 4 steps are done" in output for output in outputs) == 1
    require_same_results(alone, out)


@pytest.mark.slow
def test_processes_that_share_steps_train_and_compute_too(tmp_path, capfd):
    out = tmp_path / "run"
    options = ["--schedule", "tiny", "--out", out, "--zoo", "none", "--launcher", "accelerate", "--workers", "2"]
    assert run("at", "appendix-a", *options) == 0
    assert "2 of 2 steps are done" in capfd.readouterr().out
    assert (out / "networks/at/finished.json").is_file()
    assert (out / "results/appendix-a.json").is_file()


@pytest.mark.slow
def test_workers_on_this_machine(alone, tmp_path, capsys):
    out = networks_of(alone, tmp_path / "workers")
    options = ["--schedule", "tiny", "--out", out, "--zoo", "none", "--launcher", "local", "--workers", "2"]
    assert run(*EVALUATIONS, *options) == 0
    assert "All 2 processes have ended" in capsys.readouterr().out
    assert all("of 4 steps are done" in (out / "logs" / f"worker-{number}.log").read_text() for number in (0, 1))
    require_same_results(alone, out)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # jobs outlive their executor
def test_jobs_of_a_cluster(alone, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "SLURM", "local")
    out = networks_of(alone, tmp_path / "jobs")
    options = ["--schedule", "tiny", "--out", out, "--zoo", "none", "--launcher", "slurm", "--workers", "2"]
    assert run(*EVALUATIONS, *options, "--slurm", "timeout_min=10") == 0
    assert "Jobs: " in capsys.readouterr().out
    names = {path.name for path in (alone / "results").glob("*.json")}
    until = time.monotonic() + 300
    while names != {path.name for path in (out / "results").glob("*.json")}:
        assert time.monotonic() < until, [path.read_text() for path in (out / "jobs").glob("*.err")]
        time.sleep(0.2)
    require_same_results(alone, out)


@pytest.mark.slow
def test_a_worker_that_fails_is_named(tmp_path, capsys):
    (tmp_path / "paper.json").write_text("{")
    assert run("appendix-a", "--schedule", "tiny", "--out", tmp_path, "--launcher", "local", "--workers", "1") == 1
    assert "Failed: worker-0; see" in capsys.readouterr().out
    assert "error: " in (tmp_path / "logs/worker-0.log").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--launcher", "slrum"], "error: launcher: expected one of none, local, accelerate, slurm, got 'slrum'"),
        (["--slurm", "partition=gpu"], "error: slurm: expected none without --launcher slurm"),
        (["--launcher", "slurm", "--slurm", "partition"], "error: slurm: expected NAME=VALUE,..., got 'partition'"),
        (["--launcher", "slurm"], "error: launcher: expected a Slurm cluster that takes these settings, got "),
        (["--launcher", "local", "tabel-1"], "error: names: expected names of table-1"),
    ],
)
def test_wrong_options(options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # without sbatch
    assert run("--out", tmp_path / "run", "--schedule", "tiny", *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_without_submitit(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ArgumentError, match=r"launcher: expected submitit for slurm, .*; pip install"):
        launchers.submit(["x"], 1, tmp_path, {}, "slurm")


@pytest.mark.parametrize(
    ("gpus", "environment", "expected"),
    [
        (0, {}, [{}, {}, {}]),
        (2, {}, [{"CUDA_VISIBLE_DEVICES": name} for name in "010"]),
        (2, {"CUDA_VISIBLE_DEVICES": "5,7"}, [{"CUDA_VISIBLE_DEVICES": name} for name in "575"]),
    ],
)
def test_each_worker_has_its_share_of_the_machine(gpus, environment, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    made = [launchers.worker_environment(number, 3, environment) for number in range(3)]
    assert made == [{"OMP_NUM_THREADS": "2", **environment, **each} for each in expected]
    assert launchers.worker_environment(0, 3, {"OMP_NUM_THREADS": "5"})["OMP_NUM_THREADS"] == "5"
