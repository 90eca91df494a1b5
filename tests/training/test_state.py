"""Saved states are whole or absent."""

import json

import pytest
import torch

from smoothed.errors import CheckpointError, OutputError
from smoothed.training.state import load_state, save_state


def test_a_state_comes_back_and_replaces_the_older(tmp_path):
    assert load_state(tmp_path) is None
    for step in (1, 2):
        save_state(tmp_path, step, {"weights": {"w": torch.full((2,), float(step))}, "momentum": {}}, {"seconds": 3.0})
    groups, meta = load_state(tmp_path)
    assert torch.equal(groups["weights"]["w"], torch.tensor([2.0, 2.0]))
    assert groups["momentum"] == {}
    assert (meta["step"], meta["seconds"]) == (2, 3.0)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_a_failure_leaves_the_older_state(tmp_path, monkeypatch):
    save_state(tmp_path, 1, {"weights": {"w": torch.zeros(2)}}, {})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("smoothed.checkpoint.save_file", full)
    with pytest.raises(OutputError, match="No space left"):
        save_state(tmp_path, 2, {"weights": {"w": torch.ones(2)}}, {})
    assert load_state(tmp_path)[1]["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_damaged_state_is_said_to_be(tmp_path):
    save_state(tmp_path, 1, {"weights": {"w": torch.zeros(2)}}, {})
    meta = tmp_path / "step-00000001" / "meta.json"
    meta.write_text(json.dumps({"step": 1})[:-3])
    with pytest.raises(CheckpointError, match="damaged"):
        load_state(tmp_path)
