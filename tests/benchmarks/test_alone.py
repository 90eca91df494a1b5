"""A process of its own does what it is told, and one that has ended is no success."""

import importlib
import os
from functools import partial
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_an_action_has_ended_in_another_process_when_it_returns(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)  # which the other process gets, too
    other = importlib.import_module("alone").Alone(partial(dict, touch=Path.touch, end=os._exit))
    for name in ("first", "second"):
        other.action("touch", tmp_path / name)()
        assert (tmp_path / name).exists()
    with pytest.raises(EOFError):
        other.action("end", 0)()
