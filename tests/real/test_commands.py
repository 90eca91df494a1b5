"""Every command on a network, weights, data, an attack, a vote, a noise and a recipe of the user's own module."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import smoothed
from real.foreign import MEAN, STD, normalized, separable_images, trained_resnet, write_folder, write_module
from smoothed import Gaussian, Result, Smoothed
from smoothed.cli.main import main

EPS = 8 / 255
FACTORY = ["--model", "gears:make", "--model-args", '{"classes": 2}']
STATISTICS = ["--normalize", "0.485,0.456,0.406/0.229,0.224,0.225"]
OWN = [*FACTORY, "--weights", "w.safetensors", *STATISTICS, "--data", "gears:data"]
FEW = ["--restarts", "1", "--eot-samples", "1", "--queries", "2", "--resubmissions", "1,2"]


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A folder with the module `gears` and its weights; the module is forgotten afterwards."""
    folder = tmp_path_factory.mktemp("own")
    write_module(folder, "gears")
    yield folder
    sys.modules.pop("gears", None)


@pytest.fixture
def run(module, monkeypatch, tmp_path, capsys):
    """A function that runs a command in the module's folder and returns the result that it wrote, and its output."""
    monkeypatch.chdir(module)

    def run(*arguments):
        path = tmp_path / "result.json"
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in (*arguments, "--json", path, "--quiet")])
        printed = capsys.readouterr()
        assert (stop.value.code, printed.err) == (0, "")
        return Result.load(path), printed.out

    return run


def own_data():
    images, labels = separable_images(12, 1)
    return images.float() / 255, labels


def network():
    return smoothed.load(trained_resnet(), normalize=(MEAN, STD))


@torch.no_grad()
def plain_logits(inputs):
    return trained_resnet()(normalized(inputs * 255))


def accuracy(inputs, labels):
    return float((plain_logits(inputs).argmax(1) == labels).double().mean())


def same_numbers(result, expected):
    """Whether two results have the same outcomes of each image."""
    names = {name for name in expected.tensors if name not in ("images", "adversarial")}
    return names <= result.tensors.keys() and all(
        torch.allclose(result.tensors[name].double(), expected.tensors[name].double(), atol=1e-5) for name in names
    )


@pytest.mark.parametrize("weights", ["w.safetensors", "w.pth"])
def test_evaluate_without_noise_is_plain_torch(run, weights):
    options = [*FACTORY, "--weights", weights, *STATISTICS, "--data", "gears:data"]
    result, printed = run("evaluate", *options, "--attack", "gears:attack", "--eps", "8/255")
    inputs, labels = own_data()
    (row,) = result.rows
    assert row["clean"] == pytest.approx(accuracy(inputs, labels))
    sides = torch.stack([plain_logits((inputs + shift).clamp(0, 1)) for shift in (-EPS, EPS)])
    losses = torch.stack([nn.functional.cross_entropy(logits, labels, reduction="none") for logits in sides])
    worse = sides[losses.argmax(0), torch.arange(12)]
    assert row["robust"] == pytest.approx(float((worse.argmax(1) == labels).double().mean()))
    assert row["attack"] == "gears:attack"
    assert "gears:make" in printed
    assert result.data["name"] == "gears:data"
    assert "sys.path" not in printed


def test_folders_and_records_have_the_accuracy_of_plain_torch(run, tmp_path):
    images, labels = separable_images(12, 1)
    folder = write_folder(tmp_path / "parts", images, labels)
    for data in ([f"{folder}@16"], ["gears:records", "--data-keys", "photo,part"]):
        result, _ = run("evaluate", *OWN[:-1], *data, "--attack", "none")
        assert result.rows[0]["clean"] == pytest.approx(accuracy(images.float() / 255, labels))


@pytest.mark.slow
def test_evaluate_with_a_vote_and_a_noise(run, tmp_path):
    sys.modules.pop("gears", None)
    result, _ = run(
        *("evaluate", *OWN, "--attack", "none", "--noise", "gears:salt", "--votes", "gears:squared,soft"),
        *("--num-samples", "2,5", "--plot", tmp_path / "plot.pdf"),
    )
    gears = sys.modules["gears"]
    expected = smoothed.evaluate(
        Smoothed(network(), gears.salt), own_data(), attack="none", votes=(gears.squared, "soft"), num_samples=(2, 5)
    )
    assert [row["vote"] for row in result.rows] == ["none", "gears:squared", "gears:squared", "soft", "soft"]
    assert {row["noise"] for row in result.rows[1:]} == {"gears:salt"}
    assert same_numbers(result, expected)
    assert (tmp_path / "plot.pdf").read_bytes()[:5] == b"%PDF-"


COMMANDS = {
    "evaluate": (
        ["--sigma", "0.1", "--num-samples", "1,4", "--votes", "soft", "--steps", "2", "--eps", "4/255"],
        lambda data: smoothed.evaluate(
            Smoothed(network(), Gaussian(0.1), vote="soft"), data, num_samples=(1, 4), steps=2, eps=4 / 255
        ),
    ),
    "certify": (
        ["--sigma", "0.1", "--num-samples", "20", "--selection-samples", "4", "--radii", "0,0.1"],
        lambda data: smoothed.certify(
            Smoothed(network(), Gaussian(0.1)), data, num_samples=20, selection_samples=4, radii=(0, 0.1)
        ),
    ),
    "sweep": (
        ["--sigma", "0,0.1", "--votes", "prediction", "--num-samples", "1,4", "--attack", "fgsm", "--eps", "4/255"],
        lambda data: smoothed.sweep(
            network(), data, sigmas=(0, 0.1), votes=["prediction"], num_samples=(1, 4), attack="fgsm", eps=4 / 255
        ),
    ),
    "attack": (
        ["--sigma", "0.1", "--vote", "gears:squared", "--num-samples", "4", "--attack", "gears:attack"],
        lambda data: smoothed.attack(
            Smoothed(network(), Gaussian(0.1), vote=sys.modules["gears"].squared, num_samples=4),
            data,
            attack=sys.modules["gears"].attack,
        ),
    ),
    "check": (
        ["--sigma", "0.1", "--num-samples", "4", "--steps", "2", "--eot-samples", "2", "--eps", "4/255"],
        lambda data: smoothed.check(
            Smoothed(network(), Gaussian(0.1), num_samples=4), data, steps=2, eot_samples=2, eps=4 / 255, images=None
        ),
    ),
    "worst-case": (
        ["--sigma", "0.1", "--num-samples", "4", "--steps", "2", "--eps", "4/255", *FEW],
        lambda data: smoothed.worst_case(
            Smoothed(network(), Gaussian(0.1), num_samples=4),
            data,
            steps=2,
            eps=4 / 255,
            restarts=1,
            eot_samples=(1,),
            queries=2,
            resubmissions=(1, 2),
        ),
    ),
}


@pytest.mark.parametrize(
    "command", [pytest.param(c, marks=[pytest.mark.slow] * (c in ("check", "worst-case"))) for c in COMMANDS]
)
def test_a_command_is_the_call(run, command, tmp_path):
    options, call = COMMANDS[command]
    more = ["--examples", tmp_path / "examples.safetensors"] if command == "attack" else []
    result, printed = run(command, *OWN, *options, *more)
    assert result.kind == command
    assert "make sure that the classes" in " ".join(printed.split())
    assert same_numbers(result, call(own_data()))
    assert result.provenance["command"].startswith(f"smoothed {command} --model gears:make")


def test_saved_examples_are_evaluated_again(run, tmp_path):
    path = tmp_path / "examples.safetensors"
    first, _ = run("attack", *OWN, "--attack", "gears:attack", "--examples", path)
    again, _ = run("evaluate", *OWN, "--examples", path)
    assert again.kind == "examples"
    inputs, labels = own_data()
    assert first.rows[0]["robust"] == pytest.approx(accuracy(first.tensors["adversarial"], labels))
    assert first.rows[0]["clean"] == pytest.approx(accuracy(inputs, labels))


@pytest.mark.slow
def test_train_and_evaluate_what_it_wrote(run, tmp_path):
    options = ["--architecture", *FACTORY[1:], "--data", "gears:training", "--out", tmp_path / "run", "--quiet"]
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in ("train", "--recipe", "gears:recipe", *options)])
    assert stop.value.code == 0
    weights = tmp_path / "run" / "best.safetensors"
    evaluated, _ = run("evaluate", *FACTORY, "--weights", weights, "--data", "gears:data", "--attack", "none")
    inputs, labels = own_data()
    plain = type(trained_resnet())().eval()
    plain.load_state_dict(load_file(weights))
    with torch.no_grad():
        right = plain(inputs).argmax(1) == labels
    assert evaluated.rows[0]["clean"] == pytest.approx(float(right.double().mean()))
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["config"]["attack"] == "fgsm"
    assert card["config"]["recipe"] == "gears:recipe"


ERRORS = [
    (["--model", "gears:mak"], "error: model: expected the name of something in gears, got mak, which is not there"),
    (["--model", "nothing:make"], "error: model: expected a module that can be imported, got nothing:make"),
    ([*FACTORY[:2], "--model-args", '{"classes": }'], "error: model-args: expected a dictionary, or a JSON object"),
    ([*FACTORY[:2], "--model-args", '{"class": 2}'], "error: model-args: expected the arguments of gears:make"),
    ([*OWN, "--attack", "gears:atack"], "error: attack: expected the name of something in gears, got atack"),
    ([*OWN, "--sigma", "0.1", "--votes", "gears:squares"], "error: votes: expected the name of something in gears"),
    ([*OWN, "--noise", "gears:pepper"], "error: noise: expected the name of something in gears"),
    ([*OWN, "--weights", "none.pth"], "none.pth"),
    ([*OWN, "--normalize", "0.5/0.5"], "images of shape"),
    ([*OWN, "--normalize", "120,120,120/60,60,60"], "error: normalize: expected values for pixels in [0, 1]"),
    ([*FACTORY[:2], "--model-args", '{"classes": 1}', "--data", "gears:data"], "float logits of shape (12, K), K >= 2"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_errors_name_what_the_user_wrote(arguments, message, module, monkeypatch, capsys):
    monkeypatch.chdir(module)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", *arguments])
    printed = capsys.readouterr()
    assert (stop.value.code, printed.out) == (2, "")
    assert message in " ".join(printed.err.split())
    assert "Traceback" not in printed.err
