"""Every option of every command, tried with wrong values of its type and of its own."""

import itertools

import pytest
import typer

import smoothed
from bad_input.wrong import Files
from made_results import evaluated
from smoothed.cli.main import build_app, main

pytestmark = pytest.mark.slow

MODULE = """
import torch
from torch import nn


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).eval()


def data():
    return torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2


def raises(*arguments):
    raise RuntimeError("first line" + chr(10) + "second line")


def nothing(*arguments):
    return None


number = 3
"""
OWN = (
    "no_such_module:x",
    "wrong_input:no_such_name",
    "wrong_input:number",
    "wrong_input:raises",
    "wrong_input:nothing",
)
"""Names of the user's own code that do not work, for options that take such names."""

NETWORK, DATA = ("--model", "wrong_input:network"), ("--data", "wrong_input:data")
QUICK = (*NETWORK, *DATA, "--sigma", "0.1")
GOOD = {
    "demo": ("--images", "2"),
    "evaluate": (*QUICK, "--attack", "fgsm"),
    "worst-case": (*QUICK, "--steps", "1"),
    "sweep": (*QUICK, "--attack", "fgsm"),
    "attack": (*QUICK, "--attack", "fgsm", "--examples", "examples.safetensors"),
    "check": (*QUICK, "--steps", "1"),
    "certify": (*QUICK, "--num-samples", "20"),
    "train": ("--architecture", "wrong_input:network", "--data", "wrong_input:data", "--out", "run", "--epochs", "1"),
    "serve": QUICK,
    "report": ("--out", "report.html", "result.json"),
    "compare": ("result.json", "result.json"),
    "recipes": (),
    "download": ("cifar10",),
    "paper list": (),
    "paper run": ("--out", "paper", "--schedule", "tiny"),
    "paper show": ("--out", "paper"),
    "zoo": (),
}
"""Arguments of each command to which a wrong one is added."""

NUMBERS = {"integer": ["x", "1.5", "", "nan"], "float": ["x", "", "1,2"]}
"""Wrong values of options with a number, whichever it is."""

COUNT, CHOICE = ["0", "-1"], ["no-such-choice", ""]
LIST = ["x", "", "1,,2", "1:2", "nan", "1e99999"]
FILE = ["FOLDER", "TEXT/file", "", "TEXT/deeper/file"]
SHARE = ["-0.1", "1.5", "nan", "inf"]
NOT_NEGATIVE = ["-1", "nan", "inf"]

SHARED = {
    "model": ["nonet", "", *OWN, "MISSING", "FOLDER", "TEXT", "TRUNCATED", "zoo/nonet"],
    "model_args": ["x", "", "[1]", "3", '{"a": 1}', "{"],
    "weights": ["MISSING", "FOLDER", "TEXT", "TRUNCATED", ""],
    "normalize": ["x", "", "0.5", "0.5/0", "0.5/-1", "0.5/nan", "1,2/3", "0.1,0.2/0.3,0.4"],
    "outputs": CHOICE,
    "data": ["nodata", "", *OWN, "MISSING", "FOLDER", "TEXT", "TRUNCATED"],
    "data_keys": ["x", "", "a,b,c", ","],
    "split": CHOICE,
    "images": [*COUNT, "1001"],
    "attack": [*CHOICE, "wrong_input:number", "no_such_module:x", "wrong_input:nothing", "wrong_input:raises"],
    "eps": ["x", "", "-1", "8", "1/0", "nan", "inf"],
    "norm": CHOICE,
    "steps": COUNT,
    "eot_samples": COUNT,
    "max_queries": COUNT,
    "sees": CHOICE,
    "source": ["nonet", "MISSING", "TEXT"],
    "noise": [*CHOICE, "no_such_module:x", "wrong_input:number"],
    "sigma": ["-1", "nan", "inf", "2"],
    "sigma_normalized": ["-1", "nan", "inf", "0.1"],
    "vote": [*CHOICE, "no_such_module:x", "wrong_input:number"],
    "votes": ["no-such-choice", "soft,", "soft,soft", "soft,a,b", "no_such_module:x", "wrong_input:number"],
    "num_samples": COUNT,
    "tune": [],
    "record": [],
    "examples": ["MISSING", "FOLDER", "TEXT", "TRUNCATED", ""],
    "votes_per_image": COUNT,
    "runs": COUNT,
    "plot": [*FILE, "plot.abc", "plot"],
    "seed": ["18446744073709551616"],
    "chunk_size": COUNT,
    "out": ["TEXT", "TEXT/folder", ""],
    "json": FILE,
    "report": [*FILE, "report.txt", "report"],
    "results": ["MISSING", "FOLDER", "TEXT", "TRUNCATED"],
    "precision": CHOICE,
    "device": [*CHOICE, "cuda:99", "cpu:1"],
    "quiet": [],
    "restarts": COUNT,
    "sweep_images": COUNT,
    "queries": [*COUNT, "1"],
    "resubmissions": [*LIST, "0", "2,1", "1,1"],
    "alpha": ["0", "0.5", "-1", "nan"],
    "certify": [],
    "radii": [*LIST, "-1", "0.1,0.1"],
    "selection_samples": COUNT,
    "to": [],
    "name": CHOICE,
    "recipe": [*CHOICE, "no_such_module:x", "wrong_input:number", "wrong_input:nothing", "wrong_input:raises"],
    "config": ["MISSING", "FOLDER", "TEXT", "TRUNCATED", ""],
    "validation": ["nodata", *OWN, "MISSING", "FOLDER", "TEXT"],
    "start": ["nonet", "MISSING", "FOLDER", "TEXT", "TRUNCATED"],
    "new_head": [],
    "augmentation": CHOICE,
    "architecture": ["no-such-choice", *OWN],
    "injection": CHOICE,
    "injection_strength": NOT_NEGATIVE,
    "input_sigma": [*NOT_NEGATIVE, "2"],
    "input_sigma_normalized": NOT_NEGATIVE,
    "input_draws": CHOICE,
    "eps_warmup": SHARE,
    "attack_steps": COUNT,
    "relative_step_size": NOT_NEGATIVE,
    "steps_warmup": SHARE,
    "nfgsm_warmup": SHARE,
    "training": [],
    "loss": CHOICE,
    "adversarial_weight": SHARE,
    "copies": COUNT,
    "copy_sigma": ["x", "", "-1", "25", "1/0", "nan", "inf"],
    "kl_weight": NOT_NEGATIVE,
    "beta": NOT_NEGATIVE,
    "auxiliary_norms": [],
    "label_smoothing": SHARE,
    "loss_samples": COUNT,
    "weight_perturbation": NOT_NEGATIVE,
    "hidden_noise": NOT_NEGATIVE,
    "hidden_steps": COUNT,
    "hidden_layers": COUNT,
    "lipschitz_weight": NOT_NEGATIVE,
    "replays": COUNT,
    "epochs": COUNT,
    "batch_size": COUNT,
    "accumulation": COUNT,
    "schedule": CHOICE,
    "lr": NOT_NEGATIVE,
    "noise_lr": NOT_NEGATIVE,
    "momentum": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "average": SHARE,
    "keep": CHOICE,
    "validation_attack_images": COUNT,
    "compiled": [],
    "time_limit": ["x", "", "-1", "1d", "nan"],
    "zoo": [],
    "add": ["nonet", "MISSING", "FOLDER", "TEXT", "TRUNCATED"],
    "folder": ["TEXT", "TEXT/folder"],
    "pages": [],
    "host": ["no.such.host.example", "999.1.1.1"],
    "port": ["-1", "65536"],
    "token": ["short", ""],
    "max_samples": COUNT,
    "max_steps": COUNT,
    "max_eot_samples": COUNT,
    "max_body": COUNT,
    "max_pixels": COUNT,
    "queue": COUNT,
    "streams": COUNT,
    "body_timeout": [*NOT_NEGATIVE, "0"],
    "grace": [*NOT_NEGATIVE, "0"],
    "launcher": CHOICE,
    "workers": COUNT,
    "slurm": ["x", "", "a=", "=b", "partition=gpu"],
    "declarations": CHOICE,
    "version": [],
}
"""Wrong values of options by name, beside those of their types. Words in capitals stand for files of the test."""

LISTS = {
    "sigma": [*LIST, "-1", "2", "0.1,0.1", "0:1:0", "0:1:0.3"],
    "sigma_normalized": [*LIST, "-1", "0.1,0.1"],
    "num_samples": [*LIST, "0", "1,1", "1.5"],
}
OF_COMMAND = {
    **{(command, name): values for command in ("evaluate", "sweep") for name, values in LISTS.items()},
    ("certify", "sigma"): LISTS["sigma"],
    ("certify", "sigma_normalized"): LISTS["sigma_normalized"],
    ("worst-case", "eot_samples"): [*LIST, "0", "2,1", "1,1"],
    ("attack", "examples"): FILE,
    ("report", "out"): [*FILE, "report.txt", "report"],
    ("compare", "vote"): ["no-such-choice", "", "soft,", "a,b,c"],
    ("compare", "sigma"): [*LIST, "-1", "0.1,0.2,0.3"],
    ("compare", "sigma_normalized"): [*LIST, "-1", "0.1,0.2,0.3"],
    ("compare", "num_samples"): [*LIST, "0", "1.5", "1,2,3"],
    ("sweep", "noise"): [*CHOICE, *OWN],
    ("train", "data"): ["nodata", "", *OWN, "MISSING", "FOLDER", "TEXT", "sample", "imagefolder:MISSING"],
}
"""The same for options that are of another kind in one command."""


BASE = {
    **{("evaluate", option): QUICK for option in ("examples", "votes_per_image")},
    ("report", "results"): ("--out", "report.html"),
    ("compare", "results"): ("result.json",),
    **{
        ("compare", option): ("votes.json", "votes.json")
        for option in ("vote", "sigma", "sigma_normalized", "num_samples")
    },
    ("train", "start"): ("--data", "wrong_input:data", "--out", "run"),
    ("zoo", "add"): ("--name", "cni-w"),
    ("zoo", "name"): ("--add", "resnet20-cni-w"),
    ("zoo", "folder"): ("--add", "resnet20-cni-w", "--name", "cni-w"),
}
"""Arguments in place of those of `GOOD` for single options."""

ALSO = {"normalize": ("model",), "declarations": ("names",), "host": ("token",)}
"""Other options that a message may name."""

LATE = {("attack", "wrong_input:raises"), ("attack", "wrong_input:nothing")}
"""What is found wrong only when it is called, at which time a run has begun."""


def commands(group, path=()):
    """Name and command of each command of a group and of its groups."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMAND = typer.main.get_command(build_app())
COMMANDS = dict(commands(COMMAND))
TABLE = [(name, each.name) for name, command in COMMANDS.items() for each in command.params if each.name != "help"]


def parameter(name, option):
    return next(each for each in COMMANDS[name].params if each.name == option)


def number_type(parameter):
    """`integer` or `float` if Typer reads such a number itself, by whichever of its versions."""
    descriptor = getattr(parameter, "type_descriptor", None)
    if descriptor is None:
        return parameter.type.name
    own = getattr(descriptor.parameter_info, "parser", None) is not None
    return None if own else {int: "integer", float: "float"}.get(descriptor.annotation)


def wrong_values(name, option):
    """The wrong values of one option, and for a switch that it takes none."""
    each = parameter(name, option)
    if getattr(each, "is_flag", False):
        return []
    return [*NUMBERS.get(number_type(each), []), *(OF_COMMAND.get((name, option)) or SHARED[option])]


def fault_of(arguments, names, capfd):
    """What is wrong with the answer to wrong arguments; empty if nothing is."""
    capfd.readouterr()
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:150]!r}"
    out, err = capfd.readouterr()
    if code != 2:
        return f"exit code {code}: {err[-300:]!r}"
    lines = err.splitlines()
    if len(lines) != 1 or out:
        return f"{len(lines)} lines on stderr, {out[:50]!r} on stdout: {err[:600]!r}"
    message = err.removeprefix("error: ")
    if err == message or not any(
        message.startswith((f"{each}:", f"{each}/")) or f"'{each}'" in message for each in names
    ):
        return f"names another option: {err.strip()}"
    return ""


@pytest.fixture
def files(tmp_path, monkeypatch):
    files = Files(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    work.joinpath("wrong_input.py").write_text(MODULE)
    smoothed.Result("train", [], summary={"kept": {}}).save(work / "result.json")
    evaluated(4).save(work / "votes.json")
    monkeypatch.chdir(work)
    monkeypatch.setenv("SMOOTHED_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.setattr("typer.main.get_command", lambda _: COMMAND)  # building it anew takes most of the time
    monkeypatch.setattr("smoothed.cli.main.build_app", lambda: None)
    return files


def cases(name, option, files):
    """Argument lists with one wrong value each, and what the message may name beside the option."""
    each = parameter(name, option)
    if getattr(each, "is_flag", False):
        yield [*name.split(), f"{each.opts[0]}=x"], ()
        return
    words = {"FOLDER": files.folder, "TEXT": files.text, "TRUNCATED": files.truncated, "MISSING": files.missing}
    for value in wrong_values(name, option):
        for word, path in words.items():
            value = value.replace(word, str(path))  # noqa: PLW2901
        given = [*BASE.get((name, option), GOOD[name])]
        if option == "votes_per_image":
            given += ["--examples", str(files.text)]
        if option == "sigma_normalized" and "--sigma" in given:
            given[given.index("--sigma") : given.index("--sigma") + 2] = []
        if each.param_type_name == "argument":
            given = [word for word in given if word.startswith("--") or name != "download"]
        wrong = value if each.param_type_name == "argument" else f"{each.opts[0]}={value}"
        yield [*name.split(), *given, wrong], (value, value.removeprefix("imagefolder:")) if value else ()


@pytest.mark.parametrize(("name", "option"), TABLE)
def test_a_wrong_value_is_named_in_one_line_and_nothing_is_written(name, option, files, capfd):
    each, faults = parameter(name, option), []
    names = list(itertools.chain(each.opts, (opt.removeprefix("--") for opt in each.opts), ALSO.get(option, ())))
    for case, values in cases(name, option, files):
        before = files.state()
        found = fault_of(case, [*names, *values], capfd)
        written = sorted(str(path) for path in set(files.state()) - set(before))
        if not found and written and (option, values[0]) not in LATE:
            found = f"written: {written}"
        if found:
            faults.append(f"{name} {option} {case[-1]}: {found}")
    assert not faults, "\n".join(faults)


def test_every_command_has_its_place_in_the_table():
    assert set(COMMANDS) <= set(GOOD)
