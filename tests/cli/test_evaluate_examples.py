"""`smoothed evaluate --examples` as its users meet it."""

import sys

import pytest
import torch

from smoothed import Gaussian, Result, Smoothed, attack, load
from smoothed.checkpoint import describe, read_header, read_tensors, save, write_tensors
from smoothed.data.sample import load_sample
from smoothed.injection import inject_preset
from smoothed.models import build
from smoothed.rng.seeds import mix, seeded
from smoothed.utils.imports import import_object

QUICK = ["--num-samples", 3, "--seed", 2]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A function from a number of classes to a ResNet-20 with noise inside that has learned nothing."""

    def untrained(classes):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build("resnet20", num_classes=classes)
        injection = inject_preset(model, "pni-w-layer").to_json()
        header = describe("resnet20", model, injection, load_sample().classes[:classes])
        return save(tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors", model, header)

    return untrained


@pytest.fixture
def made(run, tmp_path):
    """Six images that were attacked with the bundled network."""
    path = tmp_path / "made.safetensors"
    assert run("attack", "--examples", path, "--images", 6, "--steps", 2, "--num-samples", 1) == 0
    return path


def test_it_votes_afresh_and_writes_rows(run, made, tmp_path, capsys):
    path = tmp_path / "rows.json"
    assert run("evaluate", "--examples", made, *QUICK, "--votes-per-image", 2, "--json", path) == 0
    shown = capsys.readouterr()
    assert "resnet20-cni-w, 6 images, pgd, L-inf 8/255, votes per image: 2" in shown.out
    assert "made on this model with this noise" in shown.out
    assert f"result written to {path}" in shown.err
    result = Result.load(path)
    one_draw, vote = result.rows
    assert (one_draw["num_samples"], vote["num_samples"], vote["sigma_normalized"]) == (1, 3, 0.24)
    network, data = load("resnet20-cni-w"), load_sample().first(6)
    smoothed = Smoothed(network, Gaussian.normalized(0.24, network.normalize.std.flatten().tolist()), num_samples=3)
    for name, stream, images in (
        ("clean", 10, data.images / 255),
        ("robust", 11, read_tensors(made)[0]["images"]),
    ):
        seeds = [mix(mix(mix(2, 0), stream), again) for again in range(2)]
        right = sum(int((smoothed.predict(images, seeded(seed)) == data.labels).sum()) for seed in seeds)
        assert vote[name] == pytest.approx(right / 12)
        assert int(result.tensors[f"{name}.right"].sum()) == right


@pytest.mark.slow
def test_another_network_is_evaluated_on_them(run, made, untrained, tmp_path, capsys):
    checkpoint = untrained(10)
    options = ["--model", checkpoint, "--sigma", 0.1, "--votes", "soft", "--images", 4]
    options += ["--json", tmp_path / "rows.json", "--out", tmp_path / "steps"]
    assert run("evaluate", "--examples", made, *QUICK, *options) == 0
    assert "made on resnet20-cni-w at sigma 0.06016, not on this model" in capsys.readouterr().out
    row = Result.load(tmp_path / "rows.json")[1]
    expected = {"model": str(checkpoint), "vote": "soft", "sigma": 0.1, "images": 4}
    assert expected.items() <= row.items()
    assert not row["same_classifier"]
    assert len(list((tmp_path / "steps").iterdir())) == 2  # a batch and the configuration


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_images_outside_of_the_ball_are_refused_in_one_line(run, made, norm, capsys):
    tensors, header = read_tensors(made)
    write_tensors(made, tensors, {**header, "norm": norm, "eps": 7.9 / 255})
    capsys.readouterr()
    assert run("evaluate", "--examples", made, *QUICK) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {made}: expected images within eps = 0.0309804 ({norm}) of the clean ones, got")


OWN = """
import torch
from torch import nn

def network():
    return nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.Flatten(), nn.Linear(4 * 7 * 7, 10))

def data():
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3

def salt(inputs):
    return inputs * 0

def squared(logits):
    return logits.softmax(-1) ** 2
"""


def test_noise_vote_and_draws_are_those_of_the_attack_and_lost_weights_are_noticed(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_attacked.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = import_object("my_attacked:network", "model")()
    torch.save(network.state_dict(), "mine.pth")
    own = ["--model", "my_attacked:network", "--weights", "mine.pth"]
    attacked = ["--attack", "fgsm", "--noise", "uniform", "--sigma", 0.05, "--vote", "soft", "--num-samples", 3]
    data = ["--data", "my_attacked:data"]
    assert run("attack", *own, *data, *attacked, "--examples", "made.safetensors") == 0
    assert run("evaluate", *own, *data, "--examples", "made.safetensors", "--json", "rows.json") == 0
    assert "made on this model with this noise" in capsys.readouterr().out
    row = Result.load("rows.json")[1]
    assert (row["noise"], row["sigma"], row["vote"], row["num_samples"]) == ("uniform", 0.05, "soft", 3)
    assert run("evaluate", *data, "--examples", "made.safetensors") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "error: model: expected --model, because the attacked network my_attacked:network is no checkpoint, got none"
    )
    assert "give --model with its --weights and --normalize as in: smoothed attack --model my_attacked:network" in line
    with_weights = ["evaluate", *own, "--examples", "made.safetensors"]
    assert run(*with_weights, *data, "--noise", "laplace", "--num-samples", 2, "--json", "rows.json") == 0
    row = Result.load("rows.json")[1]
    assert (row["noise"], row["sigma"], row["vote"], row["num_samples"]) == ("laplace", 0.05, "soft", 2)
    assert run(*with_weights, *data, "--sigma", 0.1, "--votes", "weighted", "--json", "rows.json") == 0
    row = Result.load("rows.json")[1]
    assert (row["noise"], row["sigma"], row["vote"], row["num_samples"]) == ("uniform", 0.1, "weighted", 3)
    capsys.readouterr()
    assert run(*with_weights) == 2
    assert capsys.readouterr().err.endswith("whose images differ; pass --data my_attacked:data\n")
    # A function of one's own is named on the command line, so that a file names no code to be run.
    attacked = ["--attack", "fgsm", "--noise", "my_attacked:salt", "--vote", "my_attacked:squared", "--num-samples", 2]
    assert run("attack", *own, *data, *attacked, "--examples", "made.safetensors") == 0
    capsys.readouterr()
    for given, missing in (([], "noise"), (["--noise", "my_attacked:salt"], "votes")):
        assert run(*with_weights, *data, *given) == 2
        assert f"error: {missing}: expected --{missing}, because the attack had my_attacked:" in capsys.readouterr().err
    given = ["--noise", "my_attacked:salt", "--votes", "my_attacked:squared"]
    assert run(*with_weights, *data, *given, "--json", "rows.json") == 0
    assert Result.load("rows.json")[1]["same_classifier"]
    sys.modules.pop("my_attacked", None)


@pytest.mark.parametrize("unit", ["--sigma", "--sigma-normalized"])
def test_the_deviation_of_the_attack_comes_before_that_of_the_checkpoint(run, unit, tmp_path, monkeypatch):
    """The bundled network stores 0.24 in the paper's unit and votes by 64 draws."""
    monkeypatch.chdir(tmp_path)
    few = ["--images", 2, "--steps", 1, "--num-samples", 2]
    assert run("attack", *few, unit, 0.1, "--examples", "made.safetensors", "--json", "attack.json") == 0
    assert run("evaluate", "--examples", "made.safetensors", "--json", "rows.json") == 0
    attacked, row = Result.load("attack.json")[0], Result.load("rows.json")[1]
    assert all(attacked[name] == row[name] for name in ("sigma", "sigma_normalized", "noise", "vote", "num_samples"))
    assert row[unit.removeprefix("--").replace("-", "_")] == 0.1
    assert row["same_classifier"]


def test_a_network_of_no_name_is_asked_for(run, tmp_path, capsys):
    network, images = load("resnet20-cni-w"), load_sample().first(2)
    attack(network, images, attack="fgsm", examples=tmp_path / "named.safetensors")
    assert run("evaluate", "--examples", tmp_path / "named.safetensors") == 0  # by the name it was loaded by
    assert "made on this model with this noise" in capsys.readouterr().out
    del network.loaded_name
    attack(network, images, attack="fgsm", examples=tmp_path / "made.safetensors")
    assert run("evaluate", "--examples", tmp_path / "made.safetensors") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: model: expected --model, because the attacked network ResNet is no checkpoint")
    assert run("evaluate", "--examples", tmp_path / "made.safetensors", "--model", "resnet20-cni-w") == 0
    assert "made on this model with this noise" in capsys.readouterr().out


def test_other_images_and_other_files_are_refused_in_one_line(run, made, untrained, tmp_path, capsys):
    tensors, header = read_tensors(made)
    other = write_tensors(tmp_path / "other.safetensors", tensors, {**header, "pixel_fingerprint": "0123456789abcdef"})
    several = {
        (other,): "error: data: expected the 6 images of cifar10 sample that were attacked",
        (made, "--images", 7): "error: images: expected 1 to 6",
        (made, "--votes-per-image", 0): "error: votes-per-image: expected an integer of at least 1, got 0",
        (
            made,
            "--sigma",
            0.1,
            "--sigma-normalized",
            0.4,
        ): "error: sigma: expected either --sigma or --sigma-normalized",
        (made, "--sigma", "0.1,0.2"): "error: sigma: expected one value with --examples, got 2",
        (made, "--votes", "all"): "error: votes: expected one value with --examples, got 3",
        (made, "--num-samples", "1,2"): "error: num-samples: expected one value with --examples, got 2",
        (
            made,
            "--model",
            untrained(5),
        ): "error: model: expected 10 outputs, one for each class of cifar10 sample, got 5",
        (untrained(10),): "expected adversarial images written by `smoothed attack`, got a file of another kind",
        (tmp_path / "nowhere",): f"examples: expected a file that `smoothed attack` wrote, got {tmp_path / 'nowhere'}",
        (): "Option '--examples' requires an argument",
    }
    capsys.readouterr()
    for arguments, message in several.items():
        assert run("evaluate", "--examples", *arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message in line
    assert read_header(made) == header


@pytest.mark.parametrize(
    ("option", "name"),
    [
        (("--attack", "pgd"), "attack"),
        (("--eps", "8/255"), "eps"),
        (("--steps", 7), "steps"),
        (("--source", "resnet20-cni-w"), "source"),
        (("--runs", 1), "runs"),
        (("--tune",), "tune"),
        (("--record",), "record"),
    ],
)
def test_options_that_examples_ignore_are_refused(run, tmp_path, option, name, capsys):
    """Even at their default values, and before the file is read."""
    assert run("evaluate", "--examples", tmp_path / "nowhere", *option) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {name}: expected no such option with --examples, got an option of the attack"


def test_votes_per_image_need_examples(run, capsys):
    assert run("evaluate", "--votes-per-image", 2) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: votes-per-image: expected --examples beside it, got none"
