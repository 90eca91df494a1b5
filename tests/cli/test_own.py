"""Networks, data, attacks, votes and noises of a user's own module, named on the command line."""

import sys

import pytest
import torch

from smoothed import Gaussian, Result, Smoothed, evaluate, load
from smoothed.cli.inputs import images_from_options
from smoothed.cli.options import DataOptions
from smoothed.cli.own import named, own_noises, own_vote
from smoothed.errors import ArgumentError
from smoothed.smoothing.votes import top_two, vote_bound, with_bound
from smoothed.utils.names import name_of

MODULE = '''
import torch
from torch import nn

from smoothed import Gaussian

FACTOR = 3.0


class Bright(nn.Module):
    """Class 1 where the mean of an image is above a half."""

    def __init__(self, scale=10.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, inputs):
        mean = inputs.mean((1, 2, 3))
        return self.scale * torch.stack([0.5 - mean, mean - 0.5], 1)


def shares(scale=10.0):
    network = Bright(scale)
    return lambda inputs: network(inputs).softmax(1)


def broken():
    raise RuntimeError("no network\\nfor today")


def images():
    values = torch.tensor([0.2, 0.45, 0.55, 0.8])
    return values.view(4, 1, 1, 1).expand(4, 1, 4, 4).contiguous(), torch.tensor([0, 0, 1, 1])


def items():
    return [{"pixels": image, "kind": int(label)} for image, label in zip(*images())]


def stream():
    image, label = images()
    return ((image[i % 4], int(label[i % 4])) for i in range(100))


def attack(model, inputs, labels, generator):
    """Move each image by 0.1 towards the other class."""
    return (inputs + 0.1 * (1 - 2 * labels.view(-1, 1, 1, 1))).clamp(0, 1)


def squared(logits):
    return logits.softmax(-1) ** 2


def noise(inputs, generator):
    return 0.01 * torch.randn(inputs.shape, generator=generator)


def images_only(inputs):
    return 0.01 * torch.randn(inputs.shape)


def scaled(sigma):
    return lambda inputs, generator: sigma * torch.randn(inputs.shape, generator=generator)


def gaussian(sigma):
    return Gaussian(sigma)
'''
BRIGHT = ("--model", "mine:Bright", "--data", "mine:images")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with the module `mine`."""
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    yield tmp_path
    sys.modules.pop("mine", None)


def test_every_name_of_ones_own_in_one_evaluation(run, folder, capsys):
    """The attack moves each image by 0.1, so 0.45 and 0.55 change their class: half is right under attack."""
    options = ["--attack", "mine:attack", "--votes", "mine:squared,soft", "--noise", "mine:scaled", "--sigma", "0.01"]
    assert run("evaluate", *BRIGHT, *options, "--num-samples", "1,4", "--json", "result.json") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("mine:Bright, 4 images, mine:attack, L-inf 8/255", "mine:squared"))
    result = Result.load(folder / "result.json")
    assert [(row["vote"], row["num_samples"]) for row in result.rows] == [
        ("none", 1),
        ("mine:squared", 1),
        ("mine:squared", 4),
        ("soft", 1),
        ("soft", 4),
    ]
    assert all((row["clean"], row["robust"], row["attack"]) == (1.0, 0.5, "mine:attack") for row in result.rows)
    assert {(row["noise"], row["sigma"]) for row in result.rows[1:]} == {("mine:scaled", 0.01)}
    assert (result.model["name"], result.data["name"]) == ("mine:Bright", "mine:images")
    assert "only their number was compared" in shown


def test_a_network_without_noise_is_evaluated_by_one_draw(run, folder):
    assert run("evaluate", *BRIGHT, "--model-args", '{"scale": 5.0}', "--eps", "0.1", "--json", "one.json") == 0
    (row,) = Result.load(folder / "one.json").rows
    assert (row["vote"], row["clean"], row["robust"]) == ("none", 1.0, 0.5)


@pytest.mark.parametrize("noise", ["mine:noise", "mine:images_only"])
@pytest.mark.parametrize("command", ["attack", "evaluate"])
def test_noise_itself_is_named_without_a_sigma(run, folder, command, noise):
    options = ["--num-samples", 2, "--noise", noise, "--attack", "mine:attack", "--eps", 0.1, "--json", "result.json"]
    options += ["--examples", "examples.safetensors", "--vote", "mine:squared"] if command == "attack" else []
    assert run(command, *BRIGHT, *options) == 0
    row = Result.load(folder / "result.json")[-1]
    assert (row["noise"], row["sigma"], row["clean"], row["robust"]) == (noise, None, 1.0, 0.5)
    if command == "attack":
        votes = ["--noise", noise, "--num-samples", 3, "--votes", "mine:squared"]
        assert run("evaluate", *BRIGHT, "--examples", "examples.safetensors", *votes, "--json", "again.json") == 0
        again = Result.load(folder / "again.json")[-1]
        assert (again["vote"], again["clean"], again["robust"]) == ("mine:squared", 1.0, 0.5)
        assert again["same_classifier"]


@pytest.mark.slow
def test_a_sweep_makes_noise_of_each_sigma(run, folder, capsys):
    options = ["--noise", "mine:scaled", "--sigma", "0,0.01", "--votes", "mine:squared", "--num-samples", "1,2"]
    options += ["--attack", "mine:attack", "--plot", "sweep.svg", "--json", "sweep.json"]
    assert run("sweep", *BRIGHT, *options) == 0
    shown = capsys.readouterr()
    assert "warning" not in shown.err  # the function chooses the images, so nobody knows whether they are test images
    result = Result.load(folder / "sweep.json")
    assert {(row["sigma"], row["noise"], row["robust"]) for row in result.rows} == {
        (0, "mine:scaled", 0.5),
        (0.01, "mine:scaled", 0.5),
    }
    assert "<svg" in (folder / "sweep.svg").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["certify", "--sigma", "0.01,0.02", "--num-samples", 20, "--selection-samples", 2, "--radii", "0"],
        ["check", "--sigma", 0.01, "--noise", "mine:scaled", "--steps", 1, "--num-samples", 2],
        ["worst-case", "--noise", "mine:noise", "--vote", "mine:squared", "--num-samples", 2, "--steps", 1],
    ],
)
def test_other_commands_take_them(run, folder, options):
    few = ["--restarts", 1, "--eot-samples", 1, "--queries", 2, "--resubmissions", 1]
    assert run(*options, *BRIGHT, *(few if options[0] == "worst-case" else []), "--json", "result.json") == 0
    result = Result.load(folder / "result.json")
    assert (result.kind, result.model["name"]) == (options[0], "mine:Bright")
    if options[0] == "certify":
        assert [(row["sigma"], row["certified"]) for row in result.rows] == [(0.01, 1.0), (0.02, 1.0)]


def test_the_command_gives_the_numbers_of_the_function(run, folder):
    """The same network, noise and seed in Python."""
    assert run("evaluate", *BRIGHT, "--sigma", 0.2, "--votes", "soft", "--num-samples", 3, "--json", "r.json") == 0
    network = load("mine:Bright")
    classifier = Smoothed(network, Gaussian(0.2), vote="soft", num_samples=3)
    values = torch.tensor([0.2, 0.45, 0.55, 0.8]).view(4, 1, 1, 1).expand(4, 1, 4, 4)
    expected = evaluate(classifier, (values, torch.tensor([0, 0, 1, 1])), name="mine:Bright")
    found = Result.load(folder / "r.json")
    assert [row["robust"] for row in found.rows] == [row["robust"] for row in expected.rows]
    assert torch.equal(found.tensors["robust.margin"], expected.tensors["robust.margin"])


def test_networks_of_other_kinds(run, folder, capsys):
    """Normalisation shifts by the mean; probabilities are refused with the way out, and then taken."""
    # (x - 0.4) / 0.2 is above a half from x = 0.5 on, as without normalisation, and steeper.
    assert run("evaluate", *BRIGHT, "--normalize", "0.4/0.2", "--attack", "none", "--json", "n.json") == 0
    assert Result.load(folder / "n.json")[0]["clean"] == 1.0
    assert run("evaluate", *BRIGHT, "--normalize", "0/0.2", "--attack", "none", "--json", "n.json") == 0
    assert Result.load(folder / "n.json")[0]["clean"] == 0.5  # all images are bright
    capsys.readouterr()
    shares = ["evaluate", "--model", "mine:shares", "--data", "mine:images", "--attack", "none"]
    assert run(*shares) == 2
    assert "or --outputs probabilities on the command line" in capsys.readouterr().err
    assert run(*shares, "--outputs", "probabilities", "--json", "p.json") == 0
    assert Result.load(folder / "p.json")[0]["clean"] == 1.0
    torch.save({"scale": torch.tensor(-10.0)}, folder / "weights.pt")
    assert run("evaluate", *BRIGHT, "--weights", "weights.pt", "--attack", "none", "--json", "w.json") == 0
    assert Result.load(folder / "w.json")[0]["clean"] == 0.0  # the other way round


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (DataOptions("mine:images"), 4),
        (DataOptions("mine:images", images=3), 3),
        (DataOptions("mine:items", "pixels,kind"), 4),
        (DataOptions("mine:stream", images=20), 20),
        (DataOptions("sample", images=2), 2),
    ],
)
def test_data_of_every_kind(options, count):
    images = images_from_options(options)
    assert len(images) == count
    assert images.name == ("cifar10 sample" if options.data == "sample" else options.data)
    if options.data != "sample":
        assert images.labels.tolist() == ([0, 0, 1, 1] * 5)[:count]


def test_few_images_are_taken_where_none_are_asked_for():
    assert len(images_from_options(DataOptions("mine:images"), at_most=3)) == 3
    assert len(images_from_options(DataOptions("mine:images"), at_most=9)) == 4
    assert len(images_from_options(DataOptions("mine:stream"), at_most=9)) == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model", "mine:nothing"],
            "error: model: expected the name of something in mine, got nothing, which is not there",
        ),
        (["--model", "nowhere:x"], "error: model: expected a module that can be imported, got nowhere:x, but there is"),
        (
            ["--model", "mine.py"],
            "got 'mine.py'; write mine:NAME, where NAME is a function in it that returns a network",
        ),
        (["--model", "./nets/a.py"], "got './nets/a.py'; write nets.a:NAME, where NAME is a function in it"),
        (["--model", "/b/a.py"], "got '/b/a.py'; write a:NAME, in the folder of this file, where NAME is a function"),
        (["--model", "mine:broken"], "got mine:broken, which raises RuntimeError: no network"),
        (
            ["--data", "mine:broken"],
            "error: data: expected a function without arguments that returns data, got mine:br",
        ),
        (["--data", "mine:FACTOR"], "error: data: expected a name, a folder, a DataLoader"),
        (["--data", "sample"], "error: model: expected 10 outputs, one for each class of cifar10 sample, got 2"),
        (["--data", "mine:images", "--images", 5], "error: images: expected 1 to 4 (the size of mine:images), got 5"),
        (
            ["--attack", "mine:FACTOR"],
            "error: attack: expected a function (model, inputs, labels, generator), got mine:F",
        ),
        (["--attack", "mine:squared"], "got mine:squared(logits)"),
        (
            ["--votes", "mine:attack", "--sigma", 0.1],
            "error: votes: expected functions from logits to scores, got mine:",
        ),
        (
            ["--votes", "soft"],
            "error: sigma: expected a standard deviation of the input noise, got none for mine:Bright; give --sigma",
        ),
        (["--noise", "mine:noise", "--sigma", 0.1], "error: noise: expected with --sigma, a function of a deviation"),
        (
            ["--noise", "mine:noise", "--sigma-normalized", 0.1],
            "error: sigma-normalized: expected a noise of this package",
        ),
        (["--noise", "mine:scaled"], "error: noise: expected "),
        (["--sigma-normalized", 0.1], "error: sigma-normalized: expected a model with a `normalize` layer"),
        (
            ["--attack", "transfer", "--source", "mine:nothing"],
            "error: source: expected the name of something in mine, got ",
        ),
        (
            ["--tune", "--split", "validation"],
            "error: model: expected the path of a checkpoint of your own to write to",
        ),
        (["--record"], "error: model: expected the path of a checkpoint of your own to write to, got mine:Bright"),
    ],
)
def test_errors_are_one_line_and_name_what_was_written(run, arguments, message, capsys, folder):
    options = [*BRIGHT, *arguments]
    assert run("evaluate", *options, "--quiet", "--json", "result.json") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert {path.name for path in folder.iterdir()} <= {"mine.py", "__pycache__"}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["certify"], "error: sigma: expected a standard deviation"),
        (["worst-case"], "error: sigma: expected a standard deviation"),
        (
            ["sweep", "--noise", "mine:noise"],
            "error: sigma: expected --sigma beside --noise mine:noise, a function of a deviation that returns",
        ),
        (["sweep", "--noise", "mine:noise", "--sigma", "0.1,0.2"], "noise, got mine:noise, which raises TypeError: "),
        (["sweep", "--noise", "mine:noise", "--sigma", 0.1], "evaluated by `smoothed evaluate --noise mine:noise`"),
        (["sweep", "--noise", "mine:squared", "--sigma", 0.1], "write a function such as `def noise(sigma): return "),
        (["evaluate", "--noise", "mine:noise", "--sigma", 0.1], "; without --sigma, it is taken for the noise itself"),
        (["check", "--vote", "soft"], "error: sigma: expected a standard deviation"),
        (["attack", "--examples", "a.safetensors", "--num-samples", 3], "error: sigma: expected a standard deviation"),
    ],
)
def test_commands_that_need_noise_say_so(run, command, message, capsys):
    assert run(*command, *BRIGHT) == 2
    assert message in capsys.readouterr().err


def test_names_and_bounds_of_votes():
    """A renamed vote keeps its bound, by which votes stop early."""
    bounded = named(with_bound(lambda logits: logits, spread=2.0), "mine:bounded", "vote")
    assert (name_of(bounded), vote_bound(bounded, 3).spread) == ("mine:bounded", 2.0)
    assert name_of(top_two(0.5)) == "by_rank(1, 0.5)"
    assert name_of(own_vote("mine:squared")) == "mine:squared"
    assert own_vote("soft") == "soft"


def test_laws_of_the_package_from_a_factory_of_ones_own():
    """Noise with a law is drawn by this package, row by row, so it keeps its type."""
    (config,) = own_noises("mine:gaussian", [0.1], None)
    assert config.custom == Gaussian(0.1)
    assert (config.sigma, config.name) == (0.1, "gaussian")
    with pytest.raises(ArgumentError, match="sigma: expected either --sigma or --sigma-normalized, got both"):
        own_noises("gaussian", [0.1], [0.2])
    assert own_noises(None, None, None) is None
