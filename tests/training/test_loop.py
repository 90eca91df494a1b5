"""The loop: it learns, it can be killed and resumed, and it says where a model comes from."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import smoothed
from launching import Started
from smoothed.checkpoint import load, read_header, read_tensors
from smoothed.errors import CheckpointError, OutputError
from smoothed.evaluation.correctness import single_draw_accuracy
from smoothed.injection import noise_layers
from smoothed.training.card import read_config
from smoothed.training.config import TrainingConfig
from smoothed.training.loop import train

sys.path.insert(0, str(Path(__file__).parent))
import tiny_run
from tiny_run import tiny_config, tiny_set
from tiny_runs import SETTINGS, tiny_network

EPOCHS = 6


def run_alone(folder, **options):
    """What the run prints, in a process of its own."""
    done = Started(partial(tiny_run.main, str(folder), EPOCHS, **options)).end()
    assert done.returncode == 0, done.stderr
    return done.stdout


def same_weights(first, second):
    a, b = (read_tensors(folder / "last.safetensors")[0] for folder in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def lines(folder):
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in logged]


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unkilled")
    run_alone(folder)
    return folder


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_weights(unkilled, tmp_path):
    for steps in (2, 9):  # within the first epoch and after several
        started = Started(partial(tiny_run.main, str(tmp_path), EPOCHS, last=17))
        while started.running and not any(
            int(path.name.removeprefix("step-")) >= steps for path in (tmp_path / "state").glob("step-????????")
        ):
            time.sleep(0.005)
        ended = started.kill()
        assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not same_weights_exist(tmp_path) or not same_weights(unkilled, tmp_path)
    assert run_alone(tmp_path) == "finished 18\n"
    assert same_weights(unkilled, tmp_path)
    assert lines(unkilled) == lines(tmp_path)


def same_weights_exist(folder):
    return (folder / "last.safetensors").is_file()


@pytest.mark.slow
def test_a_time_limit_stops_with_everything_needed_to_go_on(unkilled, tmp_path):
    assert run_alone(tmp_path, time_limit=0.0) == "stopped 1\n"
    run_alone(tmp_path)
    assert same_weights(unkilled, tmp_path)


@pytest.mark.slow
def test_the_state_is_small_and_old_ones_go(unkilled):
    states = list((unkilled / "state").iterdir())
    assert [path.name for path in states] == ["step-00000018"]
    assert all(path.stat().st_size <= 16e6 for path in states[0].iterdir())


@pytest.mark.slow
def test_it_learns_what_can_be_learned(tmp_path):
    data = tiny_set(96, 2)
    config = tiny_config(
        epochs=12, lr=0.02, average=0.5, injection="pni-w-layer", injection_strength=0.2, attack="fgsm", eps=0.02
    )
    outcome = train(config, tiny_set(96, 0), tiny_set(16, 1), tmp_path)
    assert outcome.finished
    assert single_draw_accuracy(load(tmp_path / "last.safetensors"), data) > 0.8  # chance is 1/3


@pytest.mark.slow
def test_the_card_says_where_the_model_comes_from(unkilled):
    header = read_header(unkilled / "best.safetensors")
    assert header["architecture"] == "resnet20"
    assert header["classes"] == ["red", "green", "blue"]
    assert header["training"]["config"] == tiny_config(epochs=6).to_json()
    assert header["training"]["torch"] == torch.__version__
    assert 0 <= header["training"]["validation"]["validation_robust"] <= 1
    assert len(noise_layers(load(unkilled / "best.safetensors"))) == 22
    assert [line["epoch"] for line in lines(unkilled)] == [1, 2, 3, 4, 5, 6]
    assert list((unkilled / "tensorboard").glob("events.*"))
    best = max(line["validation_robust"] for line in lines(unkilled))
    assert header["training"]["validation"]["validation_robust"] == best


@pytest.mark.slow
def test_another_configuration_is_not_resumed(tmp_path):
    train(tiny_config(epochs=1), tiny_set(32, 0), tiny_set(16, 1), tmp_path)
    with pytest.raises(CheckpointError, match=r"expected lr 0\.1 as in the run in this folder, got 0\.2"):
        train(tiny_config(epochs=1, lr=0.2), tiny_set(32, 0), tiny_set(16, 1), tmp_path)


def test_another_recipe_is_not_resumed(tmp_path):
    run_small(tmp_path, recipe="at", epochs=1)
    with pytest.raises(
        CheckpointError, match="expected recipe 'at' as in the run in this folder, got 'at-full'; pass the same"
    ):
        run_small(tmp_path, recipe="at-full", epochs=1, adversarial_weight=1.0)


def run_small(folder, *, on_step=None, command=None, batch_norm=None, **settings):
    """A run of a network that is trained in no time."""
    config = TrainingConfig(**{**SETTINGS, **settings})
    sets, network = (tiny_set(48, 0), tiny_set(16, 1)), tiny_network(batch_norm)
    return train(config, *sets, folder, network=network, on_step=on_step, command=command)


def test_extremes_are_the_best_and_the_worst_on_clean_images(tmp_path):
    run, copies = tmp_path / "run", {}

    def watch(progress):  # the first step of an epoch finds the network that the last one ended with
        if progress.step % 3 == 1 and progress.step > 1:
            copies[progress.epoch] = read_tensors(run / "last.safetensors")[0]

    # Noise that is learned too fast: the accuracy rises, then falls.
    settings = {"injection": "cni-w", "injection_strength": 0.1, "lr": 0.02, "noise_lr": 5.0}
    outcome = run_small(run, keep="extremes", epochs=6, on_step=watch, **settings)
    copies[6] = read_tensors(run / "last.safetensors")[0]
    logged = lines(run)
    kept = json.loads((run / "card.json").read_text())["kept"]
    for name, of, extreme in (
        ("best", "validation_robust", max),
        ("converged", "validation_clean", max),
        ("diverged", "validation_clean", min),
    ):
        first = next(line for line in logged if line[of] == extreme(other[of] for other in logged))
        numbers = {key: first[key] for key in ("epoch", "validation_clean", "validation_robust")}
        tensors, header = read_tensors(run / f"{name}.safetensors")
        assert header["training"]["validation"] == kept[name] == numbers
        assert all(torch.equal(tensor, copies[first["epoch"]][key]) for key, tensor in tensors.items())
    assert outcome.best == kept["best"]
    assert 1 < kept["converged"]["epoch"] != kept["diverged"]["epoch"] > 1


@pytest.mark.slow
def test_extremes_are_kept_where_they_are_asked_for(unkilled):
    assert {path.name for path in unkilled.glob("*.safetensors")} == {"best.safetensors", "last.safetensors"}


RESUMED = {
    "stability": {"attack": "noisy", "loss": "trades"},
    "maxup": {"attack": "maxup", "adversarial_weight": 1.0},
    "maxup-crop": {"attack": "maxup-crop", "adversarial_weight": 1.0},
    "dynamic": {"attack": "dynamic"},
    "randdisc, trades, awp": {
        "injection": "cni-w+randdisc",
        "loss": "trades",
        "attack": "kl",
        "weight_perturbation": 0.01,
    },
    "advprop": {"auxiliary_norms": True, "batch_norm": nn.BatchNorm2d},
    "fgsm-pgi": {"attack": "fgsm-pgi", "loss": "consistency", "injection": "none"},
    "vdo": {"injection": "vdo-w"},
    "vdo-a, mart, awp": {"injection": "vdo-a", "loss": "mart", "weight_perturbation": 0.01},
    "adv-bnn": {"injection": "bnn-w", "attack": "epgd-loss", "eot_samples": 2},
    "adv-bnn, trades, awp": {
        "injection": "bnn-w",
        "loss": "trades",
        "attack": "kl",
        "weight_perturbation": 0.01,
    },
    "voronoi, mart": {"attack": "voronoi", "loss": "mart", "eps": 0.2},
    "voronoi-ball": {"attack": "voronoi-ball", "eps": 0.2, "injection": "cni-w"},
    "anp, trades": {"hidden_noise": 1.0, "loss": "trades", "attack": "kl"},
    "anp": {"hidden_noise": 1.0, "attack": "none"},
    "l2l": {"attack": "l2l", "adversarial_weight": 1.0},
    "l2l-2, awp": {"attack": "l2l-2", "injection": "cni-w", "weight_perturbation": 0.01},
    "csat": {"loss": "csat", "beta": 1.0},
    "vdo-layer, trades, awp": {
        "injection": "vdo-w-layer",
        "loss": "trades",
        "attack": "kl",
        "weight_perturbation": 0.01,
    },
}


# Those with most state of their own; `make test-all` runs all.
QUICK = {"advprop", "anp", "fgsm-pgi", "l2l", "vdo"}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in RESUMED]
)
def test_each_kind_of_training_goes_on_within_an_epoch(name, tmp_path):
    """Interrupted after steps 2 and 5 of 6: the weights, the metrics and the memory of an uninterrupted run."""

    def interrupt(progress):
        if progress.step in (2, 5):
            os.kill(os.getpid(), signal.SIGINT)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_small(whole, average=0.5, **RESUMED[name])
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_small(parts, average=0.5, on_step=interrupt, **RESUMED[name])
    run_small(parts, average=0.5, **RESUMED[name])
    assert same_weights(whole, parts)
    assert lines(whole) == lines(parts)
    states = [next((folder / "state").glob("step-*")) for folder in (whole, parts)]
    for group in {path.name for path in states[0].glob("*.safetensors")}:
        kept = [read_tensors(state / group)[0] for state in states]
        assert kept[0].keys() == kept[1].keys()
        assert all(torch.equal(tensor, kept[1][key]) for key, tensor in kept[0].items())


@pytest.fixture
def one_thread():
    """The order of a sum over threads is not promised."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_the_card_holds_what_repeats_the_run_bit_by_bit(tmp_path):
    settings = {"injection": "cni-w", "input_sigma_normalized": 0.1, "average": 0.5, "seed": 11}
    run_small(tmp_path / "first", command="smoothed train --seed 11", **settings)
    card = json.loads((tmp_path / "first" / "card.json").read_text())
    assert card["config"] == TrainingConfig(**{**SETTINGS, **settings}).to_json()
    assert (card["config"]["seed"], card["command"], card["processes"]) == (11, "smoothed train --seed 11", 1)
    assert (card["torch"], card["precision"]) == (torch.__version__, "no")
    assert {"smoothed", "accelerate", "python", "device"} <= set(card)
    assert [{name: value for name, value in line.items() if name != "seconds"} for line in card["epochs"]] == lines(
        tmp_path / "first"
    )
    assert len(card["epochs"]) == 2
    config = read_config(tmp_path / "first" / "card.json")
    train(config, tiny_set(48, 0), tiny_set(16, 1), tmp_path / "second", network=tiny_network())
    assert same_weights(tmp_path / "first", tmp_path / "second")
    assert lines(tmp_path / "first") == lines(tmp_path / "second")
    assert read_config(tmp_path / "first" / "best.safetensors") == config


@pytest.mark.slow
def test_the_card_names_the_revision_of_the_source(unkilled):
    def git(*arguments):
        command = ["git", "-C", str(Path(smoothed.__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    revision = json.loads((unkilled / "card.json").read_text())["revision"]
    assert git("rev-parse", "HEAD") == (git("rev-parse", revision.removesuffix("-dirty")) if revision else "")


def test_ctrl_c_saves_the_state(tmp_path):
    def interrupt(progress):
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(), tiny_set(48, 0), tiny_set(16, 1), tmp_path, on_step=interrupt)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-00000002"]


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="could not be created"):
        train(tiny_config(), tiny_set(48, 0), tiny_set(16, 1), tmp_path / "file" / "run")


@pytest.mark.slow
def test_training_leaves_the_global_generator_alone(tmp_path):
    before = torch.random.get_rng_state()
    train(tiny_config(epochs=1), tiny_set(32, 0), tiny_set(16, 1), tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())


def test_ones_own_attack_is_used(tmp_path):
    calls = []

    def attack(_, inputs, labels, generator=None):
        calls.append((len(labels), generator is not None))
        return inputs

    train(tiny_config(epochs=1), tiny_set(32, 0), tiny_set(16, 1), tmp_path, attack=attack)
    assert calls == [(16, True)] * 2
