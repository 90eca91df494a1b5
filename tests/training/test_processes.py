"""Several processes, on CPUs here, do what one does: the same weights, one set of files, one moment to stop."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from launching import Started, start_two
from smoothed.checkpoint import read_tensors
from smoothed.training.examples.attacker import new_attacker

sys.path.insert(0, str(Path(__file__).parent))
import tiny_runs

pytestmark = pytest.mark.slow
# Each must give the weights of one process. Steps are few, for a rounding grows where a gradient changes its sign.
SAME = {
    "pni-w": {},
    "input": {"injection": "cni-w", "input_sigma_normalized": 0.24, "loss": "bernoulli"},
    "fixed": {
        "injection": "none",
        "input_sigma_normalized": 0.24,
        "input_draws": "fixed",
        "attack": "epgd",
        "loss_samples": 2,
    },
    "activations": {"injection": "pni-a-a"},
    "trades": {"loss": "trades", "attack": "kl"},
    "free": {"attack": "free", "adversarial_weight": 1.0, "replays": 2, "batch_size": 15},
    "iaat": {"attack": "iaat", "epochs": 7, "batch_size": 15, "images": 15, "eps": 0.2},
    "awp": {"weight_perturbation": 0.01, "batch_size": 15},
    "uneven": {"batch_size": 15, "accumulation": 2},
    "average": {"average": 0.9, "keep": "extremes"},
    "stability": {"attack": "noisy", "loss": "trades"},
    "maxup": {"attack": "maxup", "adversarial_weight": 1.0, "batch_size": 15},
    "maxup-crop": {"attack": "maxup-crop", "adversarial_weight": 1.0},
    "dynamic": {"attack": "dynamic", "attack_steps": 4, "batch_size": 15},
    "pgi": {"attack": "fgsm-pgi", "loss": "consistency", "injection": "none", "batch_size": 15, "epochs": 3},
    "vdo": {"injection": "vdo-w", "batch_size": 15},
    "vdo-a": {"injection": "vdo-a", "batch_size": 15},
    "adv-bnn": {"injection": "bnn-w", "attack": "epgd-loss", "eot_samples": 2, "batch_size": 15},
    "voronoi": {"attack": "voronoi", "batch_size": 15, "eps": 0.2},
    "voronoi-ball, trades": {"attack": "voronoi-ball", "norm": "l2", "loss": "trades", "input_sigma": 0.05},
    "anp": {"hidden_noise": 1.0, "hidden_layers": 2, "batch_size": 15, "epochs": 3, "accumulation": 2},
    "l2l": {"attack": "l2l", "adversarial_weight": 1.0, "batch_size": 15, "accumulation": 2},
    "l2l-2": {"attack": "l2l-2", "loss": "mart", "input_sigma": 0.05},
    "csat": {"loss": "csat", "beta": 1.0, "batch_size": 15},
    "advprop": {"auxiliary_norms": True, "norms": True, "injection": "none", "batch_size": 15, "accumulation": 2},
    "advprop, trades": {"auxiliary_norms": True, "norms": True, "loss": "trades", "attack": "kl", "average": 0.9},
    "randdisc": {"injection": "randdisc", "batch_size": 15, "attack": "epgd", "eot_samples": 2},
    "bf16": {"precision": "bf16"},
}
# Of a kill, a resumed run must show nothing: longer epochs, so that there are states inside them.
LONG = {"images": 96, "batch_size": 4, "epochs": 4}
RECORDED = {"record": True, "epochs": 1, "batch_size": 15, "injection": "cni-w"}
TOLERANCE = 1e-5
BF16_TOLERANCE = 1e-3
# What a state is made of.
GROUPS = ("weights", "momentum", "examples")


def finish(start, folder, *runs):
    done = start(tiny_runs.main, folder, runs).end()
    assert done.returncode == 0, done.stderr


def kill(start, folder):
    """Start a long run and kill all its processes once it has saved a state inside an epoch."""
    started = start(tiny_runs.main, folder, [{"name": "long", **LONG, "last": 95}])
    while started.running and not list((folder / "long" / "state").glob("step-*")):
        time.sleep(0.005)
    ended = started.kill()
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (folder / "long.0.json").exists()  # it had not finished


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What one process wrote, and what two did; each also goes on with a run of the other that was killed."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    killed_one, killed_two = tmp_path_factory.mktemp("killed-one"), tmp_path_factory.mktemp("killed-two")
    long = {"name": "long", **LONG}
    kill(Started, killed_one)
    kill(start_two, killed_two)
    (killed_one / "long").rename(two / "resumed")
    (killed_two / "long").rename(one / "resumed")
    runs = [{"name": name, **settings} for name, settings in SAME.items()]
    resumed = {"name": "resumed", **LONG}
    whole = [{**run, "accumulation": 1} for run in runs]
    finish(Started, one, *whole, {"name": "recorded", **RECORDED}, long, resumed)
    recorded = {"name": "recorded", **RECORDED, "accumulation": 2}
    small = {"name": "small", "batch_size": 3, "accumulation": 2}
    absurd = {"name": "absurd", "lr": 1e18}
    limited = {"name": "limited", **LONG, "limits": [None, 0.0]}
    finish(start_two, two, *runs, recorded, small, absurd, limited, resumed)
    return one, two


def difference(first, second, file="last.safetensors"):
    """The largest difference between the weights of two runs."""
    a, b = (read_tensors(folder / file)[0] for folder in (first, second))
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("name", SAME)
def test_the_weights_are_those_of_one_process(folders, name):
    one, two = folders
    assert difference(one / name, two / name) < (BF16_TOLERANCE if name == "bf16" else TOLERANCE)


def test_another_seed_gives_other_weights_by_far(folders, tmp_path):
    """What the tolerance above is worth."""
    finish(Started, tmp_path, {"name": "other", "seed": 4})
    assert difference(folders[0] / "pni-w", tmp_path / "other") > 1000 * TOLERANCE


@pytest.mark.parametrize("name", ["free", "iaat", "pgi", "voronoi"])
def test_what_examples_remember_is_the_same(folders, name):
    (one,), (two,) = (list((folder / name / "state").glob("*/examples.safetensors")) for folder in folders)
    first, second = load_file(one), load_file(two)
    assert first.keys() == second.keys() != set()
    for a, b in zip(first.values(), (second[key] for key in first), strict=True):
        assert len(a.unique()) >= 3  # not everywhere the same is remembered
        assert float((a.float() - b.float()).abs().mean()) < TOLERANCE  # rounding decides the sign of a gradient near 0


@pytest.mark.parametrize("name", ["advprop", "advprop, trades"])
def test_auxiliary_norms_are_those_of_one_process(folders, name):
    files = [next((folder / name / "state").glob("*/auxiliary.safetensors")) for folder in folders]
    assert difference(*(file.parent for file in files), file="auxiliary.safetensors") < TOLERANCE
    main = read_tensors(folders[0] / name / "last.safetensors")[0]
    auxiliary = read_tensors(files[0])[0]
    assert float((auxiliary["0.weight"] - main["1.weight"]).abs().max()) > 100 * TOLERANCE


@pytest.mark.parametrize("name", ["l2l", "l2l-2"])
def test_the_attackers_are_that_of_one_process(folders, name):
    (one,), (two,) = (list((folder / name / "state").glob("*/examples.safetensors")) for folder in folders)
    first, second = load_file(one), load_file(two)
    assert first.keys() == second.keys() != set()
    # Adam's steps are as long where a gradient is next to nothing, and rounding then decides their sign.
    for key, start in new_attacker(3, tiny_runs.SETTINGS["seed"], torch.zeros(1)).named_parameters():
        assert (first[f"attacker.{key}"] - second[f"attacker.{key}"]).abs().mean() < 10 * TOLERANCE
        assert (first[f"attacker.{key}"] - start).abs().mean() > 50 * TOLERANCE


@pytest.mark.parametrize("name", [name for name in SAME if name != "bf16"])
def test_metrics_are_those_of_one_process(folders, name):
    one, two = (lines(folder / name) for folder in folders)
    for mean in ("loss", "training_adversarial"):  # sums of floats
        found, expected = ([line.pop(mean, 0.0) for line in logged] for logged in (two, one))
        # The examples of an attacker network follow its weights, which rounding changes by more (see above).
        assert found == pytest.approx(expected, abs=(10 if name.startswith("l2l") else 1) * TOLERANCE)
    assert one == two


def lines(folder):
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in logged]


@pytest.mark.parametrize("name", SAME)
def test_one_process_writes(folders, name):
    """The same files as of one process; TensorBoard names its own after the process."""
    one, two = folders
    assert {path for path in files(two / name) if not path.startswith("tensorboard")} == {
        path for path in files(one / name) if not path.startswith("tensorboard")
    }
    assert len(list((two / name / "tensorboard").iterdir())) == 1
    cards = [json.loads((folder / name / "card.json").read_text()) for folder in folders]
    assert [card["processes"] for card in cards] == [1, 2]
    assert cards[0]["config"] == {**cards[1]["config"], "accumulation": 1}
    assert len(cards[0]["epochs"]) == len(cards[1]["epochs"]) == cards[0]["config"]["epochs"]


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_noise_in_weights_is_shared_and_what_is_drawn_for_an_image_follows_it(folders):
    """Two processes of two parts each meet, piece by piece, what one process meets at once."""
    one, two = folders
    whole, own = calls(one / "recorded.0.safetensors"), [calls(two / f"recorded.{rank}.safetensors") for rank in (0, 1)]
    assert len(whole) == 3
    assert [len(recorded) for recorded in own] == [6, 6]
    for step, expected in enumerate(whole):
        pieces = [part for recorded in own for part in recorded[2 * step : 2 * step + 2]]
        assert [len(piece["labels"]) for piece in pieces] == [3, 4, 4, 4]
        for name in ("inputs", "labels", "drawn"):
            assert torch.equal(torch.cat([piece[name] for piece in pieces]), expected[name])
        for piece in pieces:
            assert torch.allclose(piece["weight"], expected["weight"], atol=1e-6)
    steps = torch.stack([step["weight"] for step in whole])
    assert (steps - steps[0]).abs().amax((1, 2, 3, 4))[1:].min() > 0.01  # noise that is new at each step


def calls(path):
    flat = load_file(path)
    count = 1 + max(int(name.split(".")[0]) for name in flat)
    return [{name: flat[f"{i}.{name}"] for name in ("inputs", "labels", "drawn", "weight")} for i in range(count)]


def test_a_run_that_was_killed_goes_on_with_more_or_fewer_processes(folders):
    one, two = folders
    for folder in folders:
        assert difference(one / "long", folder / "resumed") < TOLERANCE
        logged, expected = lines(folder / "resumed"), lines(one / "long")
        assert [line.pop("loss") for line in logged] == pytest.approx([line.pop("loss") for line in expected], abs=1e-4)
        assert logged == expected
    assert [json.loads((two / f"resumed.{rank}.json").read_text()) for rank in (0, 1)] == [
        {"finished": True, "step": 96}
    ] * 2


def test_all_stop_at_one_step_when_the_time_of_one_is_over(folders):
    two = folders[1]
    first, second = (json.loads((two / f"limited.{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert not first["finished"]
    assert first["step"] < 24  # within the first epoch
    assert files(two / "limited" / "state") == {
        f"step-{first['step']:08}/{name}" for name in ("meta.json", *(f"{group}.safetensors" for group in GROUPS))
    }


def test_a_batch_too_small_for_all_is_refused_by_all(folders):
    for rank in (0, 1):
        ended = json.loads((folders[1] / f"small.{rank}.json").read_text())
        assert ended == {
            "error": "batch_size: expected at least 4, one image for each part of each process, got 3",
        }


def test_all_stop_where_the_loss_of_all_is_no_number(folders):
    first, second = (json.loads((folders[1] / f"absurd.{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["error"].startswith("training diverged: the loss of step ")
