"""Training that meets what is no number stops, says where, and keeps nothing of it."""

import sys
from pathlib import Path

import pytest
import torch

from smoothed.checkpoint import read_tensors
from smoothed.errors import DivergedError
from smoothed.training.config import TrainingConfig
from smoothed.training.loop import train
from smoothed.training.state import load_state

sys.path.insert(0, str(Path(__file__).parent))
from tiny_run import tiny_set
from tiny_runs import SETTINGS, tiny_network


def run(folder, *, attack=None, on_step=None, time_limit=None, save_every=0.0, **settings):
    config = TrainingConfig(**{**SETTINGS, "attack": "fgsm", **settings})
    options = {"attack": attack, "on_step": on_step, "time_limit": time_limit, "save_every": save_every}
    return train(config, tiny_set(48, 0), tiny_set(16, 1), folder, network=tiny_network(), **options)


def saved(folder):
    """All tensors in a run's folder, by file."""
    return {path: read_tensors(path)[0] for path in folder.rglob("*.safetensors")}


def all_finite(folder):
    return all(bool(tensor.isfinite().all()) for tensors in saved(folder).values() for tensor in tensors.values())


def poisoned(step, value=float("nan")):
    """An attack that makes what is no number of one image of one step, counted from 1."""
    calls = 0

    def attack(model, inputs, labels, generator=None):
        nonlocal calls
        del model, labels, generator
        calls += 1
        spoilt = inputs.clone()
        spoilt[0] = value if calls == step else spoilt[0]
        return spoilt

    return attack


def untouched(model, inputs, labels, generator=None):
    del model, labels, generator
    return inputs


@pytest.mark.parametrize("save_every", [0.0, 60.0])  # at each step, at the end of each epoch
def test_a_loss_that_is_no_number_stops_the_run_and_is_named(tmp_path, save_every):
    with pytest.raises(DivergedError, match="training diverged: the loss of step 5 of 6 is nan") as error:
        run(tmp_path, attack=poisoned(5), save_every=save_every)
    assert "\n" not in str(error.value)
    assert f"continue from the last epoch (--from {tmp_path / 'last.safetensors'}) in a new folder" in str(error.value)
    assert load_state(tmp_path / "state")[1]["step"] == (4 if save_every == 0 else 3)
    assert all_finite(tmp_path)


def test_the_last_good_state_is_loadable_and_good(tmp_path):
    """Gone on with from there, without what went wrong, the run ends as one in which nothing did."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, attack=untouched)
    with pytest.raises(DivergedError):
        run(broken, attack=poisoned(5))
    run(broken, attack=untouched)
    first, second = (read_tensors(folder / "last.safetensors")[0] for folder in (whole, broken))
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_an_absurd_rate(tmp_path):
    losses = []
    with pytest.raises(DivergedError, match="training diverged") as error:
        run(tmp_path, lr=1e18, epochs=4, on_step=lambda progress: losses.append(progress.loss))
    first = next(step for step, loss in enumerate(losses, start=1) if not torch.tensor(loss).isfinite())
    assert f"the loss of step {first} of 12 is {losses[first - 1]}" in str(error.value)
    assert all_finite(tmp_path)


def test_weights_that_are_no_numbers_are_not_saved_though_the_loss_is_one(tmp_path):
    """The loss is taken before the step: the last one may be fine where the weights no longer are."""
    losses = []
    with pytest.raises(DivergedError, match=r"diverged: after step 1 of 6, \S+ \(weights\) is not finite") as error:
        run(tmp_path, lr=3e38, weight_decay=1e3, on_step=lambda progress: losses.append(progress.loss))
    assert torch.tensor(losses).isfinite().all()
    assert "start again in a new folder with a lower --lr" in str(error.value)
    assert not saved(tmp_path)
