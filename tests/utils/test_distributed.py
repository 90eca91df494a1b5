"""Processes that share a work, on CPUs here: what all know is what one would; a killed one ends the job in words."""

import json
import os
import signal
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import accelerate
import pytest
import torch

import shared_work
from launching import ENVIRONMENT, LAUNCH, start_two
from smoothed.errors import ProcessError
from smoothed.utils.distributed import SINGLE_PROCESS, Processes, leaving_process_group

SCRIPT = Path(shared_work.__file__)


def together(folder, work):
    """What each of two processes gives, as JSON values."""
    done = start_two(shared_work.main, work, str(folder)).end()
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{work}.{rank}.json").read_text()) for rank in range(2)]


class TestAlone:
    def test_one_process_knows_what_it_gave(self):
        assert (SINGLE_PROCESS.rank, SINGLE_PROCESS.count) == (0, 1)
        assert SINGLE_PROCESS.gather("value") == ["value"]
        assert SINGLE_PROCESS.divide([lambda: 1, lambda: 2]) == [1, 2]
        assert SINGLE_PROCESS.divide([]) == []

    def test_nobody_else_was_started(self, monkeypatch):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        assert Processes.started() == SINGLE_PROCESS

    def test_one_that_is_alone_may_be_stopped_as_ever(self, monkeypatch):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        before = signal.getsignal(signal.SIGTERM)
        with leaving_process_group():
            assert signal.getsignal(signal.SIGTERM) is before


class TestStarted:
    def test_a_slow_process_is_waited_for(self, monkeypatch):
        given = {}

        class State:
            process_index, num_processes = 1, 2

            def __init__(self, **options):
                given.update(options)

        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setattr(accelerate, "PartialState", State)
        assert Processes.started() == Processes(1, 2)
        assert given["timeout"] > timedelta(days=7)


class TestParting:
    def test_a_process_that_is_told_to_stop_says_so(self, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        before = signal.getsignal(signal.SIGTERM)

        def be_told():
            with leaving_process_group():
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)

        with pytest.raises(ProcessError, match="processes: received SIGTERM, because another process has exited"):
            be_told()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # told twice, it still can say why it ends
        signal.signal(signal.SIGTERM, before)
        with leaving_process_group():
            assert signal.getsignal(signal.SIGTERM) is not before
        assert signal.getsignal(signal.SIGTERM) is before


class TestTwo:
    def test_work_is_divided_and_known_to_both(self, tmp_path):
        first, second = together(tmp_path, "divides")
        assert first["divided"] == second["divided"] == [[i * i for i in range(count)] for count in (0, 1, 2, 7)]
        assert (first["own"], second["own"]) == ([0, 0, 0, 2, 4, 6], [1, 1, 3, 5])

    def test_votes_are_those_of_one(self, tmp_path):
        alone = shared_work.WORKS["votes"](SINGLE_PROCESS)
        for shared in together(tmp_path, "votes"):
            assert list(shared) == list(alone)
            for name, (scores, drawn) in alone.items():
                assert shared[name][1] == drawn
                assert torch.allclose(torch.tensor(shared[name][0]), torch.tensor(scores), rtol=0, atol=1e-5)

    @pytest.mark.slow
    @pytest.mark.parametrize("work", ["waits", "computes"])
    def test_a_killed_one_ends_the_job_and_the_other_says_why(self, tmp_path, work):
        command = [*LAUNCH, str(SCRIPT), work, str(tmp_path)]
        launcher = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        files = [tmp_path / f"pid.{rank}" for rank in range(2)]
        while launcher.poll() is None and not all(file.exists() for file in files):
            time.sleep(0.05)
        os.kill(int(files[1].read_text()), signal.SIGKILL)
        _, told = launcher.communicate(timeout=60)
        assert launcher.returncode != 0
        said = json.loads((tmp_path / f"{work}.0.json").read_text())["error"]
        assert "another process has exited" in said or "expected 2 running, but one has exited" in said
        assert "SIGKILL" in told
