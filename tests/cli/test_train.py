"""`smoothed train` as its users meet it: recipes, options, cards, folders of images, several processes."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image

import smoothed.api.train  # noqa: F401 - before a test puts something else in the place of the loop's `train`
from launching import ENVIRONMENT, LAUNCH, by_two
from smoothed.checkpoint import describe, load, read_header, read_tensors, save
from smoothed.evaluation.results import Result
from smoothed.injection import inject_preset
from smoothed.models import build
from smoothed.training.config import TrainingConfig
from smoothed.training.recipes import RECIPES

# A machine with one CPU is warned of two workers; Python 3.12 warns of forks beside torch's threads.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

CLASSES = ["blue", "green", "red"]
QUICK = ("--epochs", 1, "--batch-size", 9, "--validation-attack-images", 2, "--precision", "float32")
FAST = ("--recipe", "fgsm-rs", *QUICK)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 30 PNG files of several sizes, in three classes: one channel is brighter."""
    root, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for channel, name in enumerate(reversed(CLASSES)):
        (root / name).mkdir()
        for i in range(10):
            pixels = noise.integers(0, 120, (20 + i, 24, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return f"imagefolder:{root}@16"


@pytest.fixture
def one_thread():
    """The order of a sum over threads is not promised."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fails(run, capsys):
    """A function from arguments to the one line that says what is wrong with them."""

    def fails(*arguments):
        assert run("train", *arguments) == 2
        shown = capsys.readouterr()
        (line,) = (line for line in shown.err.splitlines() if line.strip())
        assert line.startswith("error: ")
        assert not shown.out
        return line

    return fails


def card(folder):
    return json.loads((folder / "card.json").read_text())


def weights(folder):
    return read_tensors(folder / "last.safetensors")[0]


def test_help_tells_every_setting(run, capsys):
    assert run("train", "--help") == 0
    shown = capsys.readouterr().out
    other = {"start": "from", "attack_steps": "steps"}
    for field in fields(TrainingConfig):
        assert f"--{other.get(field.name, field.name).replace('_', '-')} " in shown
    for option in ("--out ", "--config ", "--time-limit ", "--compile ", "--json "):
        assert option in shown


@pytest.mark.slow
def test_it_trains_on_a_folder_of_images(run, pictures, tmp_path, capsys):
    out, ended = tmp_path / "run", tmp_path / "ended.json"
    command = ["train", "--data", pictures, "--out", out, *FAST, "--epochs", 4, "--lr", 0.05, "--json", ended]
    assert run(*command) == 0
    told = capsys.readouterr().out
    result = Result.load(ended)
    assert (result.summary["finished"], result.summary["step"]) == (True, 12)  # 27 images, and 3 that were held out
    best = result.summary["kept"]["best"]
    clean, robust = best["validation_clean"], best["validation_robust"]
    assert [row["epoch"] for row in result.rows] == [1, 2, 3, 4]
    assert max(row["validation_robust"] for row in result.rows) == robust
    accuracies = f"clean {100 * clean:.2f} %, PGD-7 {100 * robust:.2f} %"
    assert told == f"best on validation: {accuracies} (3 held-out images, 2 attacked) -> {out / 'best.safetensors'}\n"
    assert read_header(out / "best.safetensors")["classes"] == CLASSES
    assert load(out / "best.safetensors")(torch.rand(2, 3, 16, 16)).shape == (2, 3)
    assert card(out)["config"]["data"] == pictures
    assert card(out)["command"].startswith("smoothed")
    assert run(*command) == 0  # it is over, and says so again
    assert capsys.readouterr().out == told
    assert len(card(out)["epochs"]) == 4


@pytest.mark.slow
def test_options_override_the_recipe(run, pictures, tmp_path):
    options = ("--steps", 1, "--beta", 2, "--eps", "4/255", "--seed", 5)
    assert run("train", "--data", pictures, "--out", tmp_path, "--recipe", "trades-6", *QUICK, *options) == 0
    expected = {"attack_steps": 1, "beta": 2.0, "eps": 4 / 255, "seed": 5, "epochs": 1, "batch_size": 9}
    expected |= {"validation_attack_images": 2, "precision": "float32", "data": pictures}
    assert card(tmp_path)["config"] == RECIPES["trades-6"].config(**expected).to_json()


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (("--input-sigma", 0.1), {"input_sigma": 0.1, "input_sigma_normalized": 0.0}),
        (("--input-sigma", 0), {"input_sigma": 0.0, "input_sigma_normalized": 0.0}),
        (("--input-sigma-normalized", 0.3), {"input_sigma": 0.0, "input_sigma_normalized": 0.3}),
    ],
)
@pytest.mark.parametrize("recipe", ["gaussian", "cni-i+w"])  # one in each unit
def test_input_noise_in_one_unit_replaces_the_recipes_own_in_the_other(
    monkeypatch, run, recipe, option, expected, tmp_path
):
    trained = []

    def train(config, *_, **__):
        trained.append(config)
        raise KeyboardInterrupt

    own = RECIPES[recipe].config()
    assert (own.input_sigma, own.input_sigma_normalized) in {(0.25, 0.0), (0.0, 0.24)}
    monkeypatch.setattr("smoothed.training.loop.train", train)
    monkeypatch.setattr("smoothed.data.adapt.as_training", lambda data, **_: (data, None, None))
    assert run("train", "--out", tmp_path, "--recipe", recipe, *option) == 130
    assert trained == [RECIPES[recipe].config(**expected)]


@pytest.mark.slow
def test_the_recipe_is_the_papers_where_none_is_named(run, pictures, tmp_path):
    assert run("train", "--data", pictures, "--out", tmp_path, *QUICK, "--steps", 1) == 0
    config = card(tmp_path)["config"]
    assert (config["recipe"], config["injection"], config["lr"]) == ("cni-w", "cni-w", 0.1)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.slow
def test_a_card_repeats_its_run_and_options_override_it(run, pictures, tmp_path):
    first, again, third, other = (tmp_path / name for name in ("first", "again", "third", "other"))
    assert run("train", "--data", pictures, "--out", first, *FAST, "--injection", "cni-w", "--average", 0.5) == 0
    assert run("train", "--out", again, "--config", first / "card.json") == 0
    assert run("train", "--out", third, "--config", first / "best.safetensors") == 0
    assert run("train", "--out", other, "--config", first / "card.json", "--lr", 0.3) == 0
    for folder in (again, third):
        assert card(folder)["config"] == card(first)["config"]
        assert all(torch.equal(tensor, weights(folder)[name]) for name, tensor in weights(first).items())
    assert card(other)["config"] == {**card(first)["config"], "lr": 0.3}
    assert any(not torch.equal(tensor, weights(other)[name]) for name, tensor in weights(first).items())


@pytest.mark.slow
def test_a_run_continues_with_its_own_recipe_alone(run, fails, pictures, tmp_path, capsys):
    command = ["--data", pictures, "--out", tmp_path]
    assert run("train", *command, *FAST, "--time-limit", "0s") == 0
    assert capsys.readouterr().out == "stopped at step 1 of 3; the same command continues the run\n"
    line = fails(*command, "--recipe", "nfgsm", *QUICK)
    assert line.startswith(
        "error: out: expected recipe 'fgsm-rs' as in the run in this folder, got 'nfgsm'; pass the same options"
    )
    assert run("train", *command, *FAST) == 0
    assert card(tmp_path)["epochs"][-1]["step"] == 3


def test_an_unknown_recipe_is_told_similar_ones(fails, tmp_path):
    line = fails("--out", tmp_path, "--recipe", "trade-6")
    assert line.startswith("error: recipe: expected one of ")
    assert " names, got 'trade-6'; did you mean trades-6 or trades-1? All: natural, at, " in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epoch", 3], "No such option: --epoch"),
        (["--epochs", "many"], "Invalid value for '--epochs'"),
        (["--eps", "8/0"], "expected a number or a fraction such as 8/255, got 8/0"),
        (["--time-limit", "soon"], "expected a time such as 90s, 25m or 1.5h, got soon"),
        (["--epochs", 0], "error: epochs: expected an integer of at least 1, got 0"),
        (["--attack", "pdg"], "got 'pdg'; did you mean pgd"),
        (
            ["--input-sigma", 0.1, "--input-sigma-normalized", 0.4],
            "error: input-sigma: expected only one of input_sigma",
        ),
        (["--norm", "l1"], "error: norm: expected one of linf, l2, got 'l1'"),
        (["--average", 2], "error: average: expected a number in [0, 1], got 2.0"),
        (["--recipe", "free", "--norm", "l2"], "error: norm: expected linf with attack free, got l2"),
        (["--recipe", "mart", "--label-smoothing", 0.1], "error: label-smoothing: expected 0 with loss mart"),
        (
            ["--architecture", "custom"],
            "error: network: expected a network if, and only if, the architecture is custom",
        ),
        (["--config", "card.json", "--recipe", "at"], "config: expected --config without --recipe, got --recipe at"),
        (["--from", "nowhere.safetensors"], "expected a checkpoint file or a bundled name"),
        (["--batch-size", 3, "--accumulation", 4], "error: batch-size: expected at least 4, one image for each part"),
    ],
)
def test_bad_options_are_one_line(fails, pictures, tmp_path, arguments, message):
    options = arguments if "--recipe" in arguments or "--config" in arguments else ["--recipe", "fgsm-rs", *arguments]
    given = [] if set(options) & {"--epoch", "--epochs"} else QUICK[:2]
    assert message in fails("--data", pictures, "--out", tmp_path / "run", *QUICK[2:], *given, *options)


def test_a_run_that_diverges_says_so_in_a_line_under_its_bar(run, pictures, tmp_path, capsys):
    assert run("train", "--data", pictures, "--out", tmp_path, *FAST, "--schedule", "steps", "--lr", 1e30) == 2
    bar, line = capsys.readouterr().err.splitlines()
    assert bar.startswith("epoch 1/1")
    assert line.startswith("error: training diverged: ")


def test_no_folder_is_made_of_a_run_that_is_refused(fails, tmp_path, monkeypatch):
    monkeypatch.setenv("SMOOTHED_DATA", str(tmp_path))
    assert "run `smoothed download cifar10`, or set --data or $SMOOTHED_DATA" in fails("--out", tmp_path / "run")
    assert "Missing option '--out'" in fails()
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_architecture_names_what_does_not_fit(fails, pictures, tmp_path):
    with torch.random.fork_rng():
        model = build("resnet20", num_classes=3)
    path = save(tmp_path / "resnet20.safetensors", model, describe("resnet20", model, [], tuple(CLASSES)))
    line = fails(
        "--data", pictures, "--out", tmp_path / "run", *FAST, "--from", path, "--architecture", "wide_resnet28_10"
    )
    assert line.startswith(f"error: {path}: expected architecture wide_resnet28_10, got resnet20 (missing: ")
    assert "unexpected: " in line
    assert "other shapes: " in line


def foreign(path):
    """Writes what is no card of this package to `path`, by what is wrong with it."""
    contents = {
        "text.json": b"not JSON",
        "bytes.json": b"\xff\xfe\x00",
        "list.json": b"[1, 2]",
        "nothing.json": b"{}",
        "other.json": json.dumps({"config": {"colour": "red"}}).encode(),
        "near.json": json.dumps({"epoch": 3}).encode(),
        "type.json": json.dumps({"config": {"epochs": "three"}}).encode(),
        "choice.json": json.dumps({"config": {"attack": "pdg"}}).encode(),
        "foreign.safetensors": b"not safetensors",
        "untrained.safetensors": None,
    }
    content = contents[path.name]
    if content is not None:
        path.write_bytes(content)
        return
    with torch.random.fork_rng():
        model = build("resnet20")
    save(path, model, describe("resnet20", model, [], tuple("abcdefghij")))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.json", "config: expected a model card in JSON or a checkpoint, got {path} (Expecting value"),
        ("bytes.json", "config: expected a model card in JSON or a checkpoint, got {path} ("),
        ("list.json", "config: expected a training configuration in {path}, got none"),
        ("nothing.json", "config: expected a training configuration in {path}, got none"),
        ("other.json", "config: expected settings that this version knows, got colour"),
        ("near.json", "config: expected settings that this version knows, got epoch; did you mean epochs"),
        ("type.json", "config: expected epochs of type int, got 'three'"),
        ("choice.json", "attack: expected one of"),
        ("foreign.safetensors", "{path}: expected a safetensors file, got a truncated file or another format"),
        ("untrained.safetensors", "config: expected a training configuration in {path}, got none"),
    ],
)
def test_a_foreign_card_is_refused(fails, tmp_path, name, message):
    path = tmp_path / name
    foreign(path)
    assert f"error: {message.format(path=path)}" in fails("--out", tmp_path / "run", "--config", path)


@pytest.mark.parametrize("name", ["card.json", "best.safetensors"])
def test_a_missing_card_is_said_to_be(fails, tmp_path, name):
    line = fails("--out", tmp_path / "run", "--config", tmp_path / name)
    assert str(tmp_path / name) in line
    assert "No such file" in line or "no such file" in line
    assert "config: expected a model card in JSON" in fails("--out", tmp_path / "run", "--config", tmp_path)


@pytest.mark.slow
def test_one_of_several_processes_prints(pictures, tmp_path):
    out, ended = tmp_path / "run", tmp_path / "ended.json"
    done = by_two("train", "--data", pictures, "--out", out, *FAST, "--json", ended)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("best on validation: clean ")
    assert Result.load(ended).summary["step"] == 3
    assert card(out)["processes"] == 2
    assert done.stderr.count("epoch 1/1") == 1


@pytest.mark.slow
def test_ctrl_c_stops_all_processes_with_the_state_saved(pictures, tmp_path):
    command = map(str, ("train", "--data", pictures, "--out", tmp_path, *FAST, "--epochs", 1000))
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    launcher = subprocess.Popen([*LAUNCH, "-m", "smoothed", *command], env=ENVIRONMENT, **streams)
    while launcher.poll() is None and not (tmp_path / "last.safetensors").exists():
        time.sleep(0.05)
    assert launcher.poll() is None
    launcher.send_signal(signal.SIGINT)
    shown, told = launcher.communicate(timeout=60)
    assert not shown
    assert told.count("stopped; the same command continues from the last state saved in") == 1
    (state,) = (tmp_path / "state").iterdir()
    assert json.loads((state / "meta.json").read_text())["step"] == int(state.name.removeprefix("step-"))


@pytest.mark.slow
def test_it_trains_on_real_images(run, fails, full_data, tmp_path, capsys):
    options = ["--attack", "nfgsm", "--epochs", 1, "--injection", "none", "--precision", "bf16"]
    command = ["--data", full_data, "--out", tmp_path / "run", *options]
    assert run("train", *command, "--time-limit", "1s", "--json", tmp_path / "outcome.json") == 0
    result = Result.load(tmp_path / "outcome.json")
    assert (result.rows, result.summary["finished"]) == ([], False)
    assert 0 < result.summary["step"] < result.summary["total_steps"] == 175
    assert "the same command continues the run" in capsys.readouterr().out
    assert "error: out: expected lr 0.1 as in the run in this folder, got 0.3" in fails(
        *command, "--time-limit", "1s", "--lr", "0.3"
    )


# Networks that have noise, and other classes.


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A checkpoint with PNI of five classes."""
    with torch.random.fork_rng():
        model = build("resnet20", num_classes=5)
    changes = inject_preset(model, "pni-w-layer").to_json()
    path = tmp_path_factory.mktemp("noisy") / "five.safetensors"
    return save(path, model, describe("resnet20", model, changes, tuple("abcde")))


@pytest.mark.slow
def test_noise_and_head_of_a_checkpoint(run, fails, pictures, noisy, tmp_path, capsys):
    command = ["--data", pictures, "--from", noisy, *FAST, "--lr", 0]
    line = fails(*command, "--out", tmp_path / "run")
    assert line == (
        f"error: {noisy} already has PNI noise; recipe fgsm-rs expects none. Pass --injection keep to keep it, or "
        "--injection none to remove it"
    )
    saved, header = read_tensors(noisy)
    note = f"note: the last layer of {noisy} (5 classes) is replaced by a new one for 3 (blue, green, red)"
    assert run("train", *command, "--out", tmp_path / "keep", "--injection", "keep") == 0
    assert note in capsys.readouterr().err.splitlines()
    assert read_header(tmp_path / "keep" / "best.safetensors")["injection"] == header["injection"]
    strengths = [name for name in saved if name.endswith("alpha") and not name.startswith("linear")]
    assert all(torch.equal(weights(tmp_path / "keep")[name], saved[name]) for name in strengths)
    assert run("train", *command, "--out", tmp_path / "none", "--injection", "none") == 0
    told = capsys.readouterr().err.splitlines()
    assert note in told
    assert f"note: the PNI noise of {noisy} is removed" in told
    assert torch.equal(weights(tmp_path / "none")["conv1.weight"], saved["conv1.parametrizations.weight.original"])


@pytest.mark.slow
def test_as_many_classes_of_other_names_need_a_choice(run, fails, pictures, tmp_path, capsys):
    with torch.random.fork_rng():
        model = build("resnet20", num_classes=3)
    path = save(tmp_path / "abc.safetensors", model, describe("resnet20", model, [], tuple("abc")))
    command = ["--data", pictures, "--from", path, *FAST, "--out", tmp_path / "run"]
    line = fails(*command)
    assert line.startswith(
        f"error: {path}: expected the classes of {pictures.split('/')[-1][:-3]} train (blue, green, red), got 3 other "
        "classes (a, b, c); pass --new-head"
    )
    assert run("train", *command, "--new-head") == 0
    assert f"note: the last layer of {path} (3 classes) is replaced" in capsys.readouterr().err
    assert card(tmp_path / "run")["config"]["new_head"] is True


# Parts of the user's own.

OWN = """
import torch
from torch import nn
from smoothed.training.config import TrainingConfig

def network(width=4):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 36, 2))

def data():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(30, 1, 8, 8, generator=generator), torch.arange(30) % 2

def attack(model, inputs, labels):
    return (inputs * 0.9).clamp(0, 1)

def recipe():
    return TrainingConfig(injection="pni-w", epochs=1, batch_size=9, precision="float32", validation_attack_images=2)

def broken():
    return 1 / 0

def nothing():
    return None

class Pictures(torch.utils.data.TensorDataset):
    def __init__(self):
        super().__init__(*data())
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The current folder has a module of the user's own."""
    (tmp_path / "my_own_parts.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("my_own_parts", None)


@pytest.mark.usefixtures("own")
def test_parts_of_ones_own_by_their_names(run, tmp_path):
    parts = {
        "architecture": "network",
        "data": "data",
        "validation": "Pictures",
        "attack": "attack",
        "recipe": "recipe",
    }
    options = [part for name, value in parts.items() for part in (f"--{name}", f"my_own_parts:{value}")]
    assert run("train", *options, "--model-args", '{"width": 3}', "--out", tmp_path / "run") == 0
    config = card(tmp_path / "run")["config"]
    found = {name: config[name] for name in ("architecture", "data", "attack", "recipe", "injection")}
    own = dict.fromkeys(("architecture", "data", "attack"), "custom")
    assert found == {**own, "recipe": "my_own_parts:recipe", "injection": "pni-w"}
    assert weights(tmp_path / "run")["3.parametrizations.weight.original"].shape == (2, 108)
    first = weights(tmp_path / "run")
    assert run("train", *options, "--model-args", '{"width": 3}', "--out", tmp_path / "again") == 0
    assert all(torch.allclose(tensor, first[name]) for name, tensor in weights(tmp_path / "again").items())


@pytest.mark.usefixtures("own")
def test_training_starts_from_the_weights_of_ones_own_network(run, tmp_path):
    state = {
        name: torch.rand(shape, generator=torch.Generator().manual_seed(len(shape)))
        for name, shape in (("0.weight", (4, 1, 3, 3)), ("0.bias", (4,)), ("3.weight", (2, 144)), ("3.bias", (2,)))
    }
    torch.save(state, tmp_path / "start.pth")
    parts = [part for name in ("data", "recipe") for part in (f"--{name}", f"my_own_parts:{name}")]
    network = ["--architecture", "my_own_parts:network", "--weights", "start.pth", "--normalize", "0.5/0.25"]
    still = ["--injection", "none", "--lr", 0, "--weight-decay", 0]
    assert run("train", *parts, *network, *still, "--out", tmp_path / "run") == 0
    trained = weights(tmp_path / "run")
    assert all(torch.equal(trained[f"model.{name}"], tensor) for name, tensor in state.items())
    (mean,), (std,) = ([t for name, t in trained.items() if name.endswith(end)] for end in (".mean", ".std"))
    assert (mean.item(), std.item()) == (0.5, 0.25)


@pytest.mark.usefixtures("own")
def test_parts_of_ones_own_that_fail_are_one_line(fails, run, tmp_path, capsys):
    out = ["--out", tmp_path / "run"]
    cases = [
        (
            ["--data", "my_own_parts:broken"],
            "data: expected a function without arguments that returns data, got my_own_pa",
        ),
        (["--data", "my_own_parts:nothing"], "got my_own_parts:nothing, which returns None"),
        (["--json", "run.safetensors"], "json: expected the name of a JSON file, got run.safetensors"),
        (["--recipe", "my_own_parts:broken"], "which raises ZeroDivisionError: division by zero"),
        (["--recipe", "my_own_parts:recipes"], "got recipes, which is not there; did you mean recipe?"),
        (
            ["--attack", "no_such_module:attack"],
            "attack: expected a module that can be imported, got no_such_module:att",
        ),
        (["--architecture", "my_own_parts:network", "--model-args", "{"], "model-args: expected"),
        (["--model-args", "{}"], "model-args: expected --architecture package.module:function beside it, got none"),
        (["--data", "sample"], "data: expected"),
    ]
    for arguments, message in cases:
        assert message in fails(*out, *arguments)
    own = ["--architecture", "my_own_parts:network", "--data", "my_own_parts:data", "--recipe", "my_own_parts:recipe"]
    assert run("train", *out, *own) == 0
    capsys.readouterr()
    message = "data: expected --data, because the configuration was of a run on data of its own, got none"
    assert message in fails("--config", tmp_path / "run" / "card.json", "--out", tmp_path / "other")
