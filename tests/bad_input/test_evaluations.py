"""Every argument of the public functions that evaluate, tried with wrong values of every kind."""

import pytest

import smoothed
from bad_input.wrong import Counting, Files, described, fault, kinds, pair, parameters

QUICK = {"attack": "fgsm", "eps": 0.03, "num_samples": (1, 2)}
FEW = {"restarts": 1, "eot_samples": (1,), "queries": 2, "resubmissions": (1,), "sweep_images": 2, "steps": 1}
GOOD = {
    "evaluate": QUICK,
    "worst_case": FEW,
    "sweep": {**QUICK, "sigmas": (0.0, 0.1), "votes": ("soft",)},
    "certify": {"radii": (0.1,), "selection_samples": 2, "num_samples": 12},
    "check": {"steps": 1, "eot_samples": 1},
    "attack": {"attack": "fgsm", "eps": 0.03},
    "evaluate_examples": {},
}
"""The public functions that evaluate, each with arguments with which it takes little time."""

# The kind of each parameter, for all functions that have it.
SHARED = {
    "classifier": "classifier",
    "data": "data",
    "attack": "attack",
    "eps": "radius",
    "norm": "choice",
    "steps": "count",
    "eot_samples": "count",
    "max_queries": "count",
    "sees": "choice",
    "sources": "sources",
    "noises": "noises",
    "votes": "votes",
    "num_samples": "counts",
    "base": "flag",
    "split": "split",
    "images": "number of images",
    "keys": "keys",
    "name": "name",
    "runs": "count",
    "seed": "seed",
    "precision": "choice",
    "chunk_size": "count",
    "keep_images": "not negative integer",
    "out": "path of a folder to write",
    "processes": "processes",
    "on_batch": "progress",
    "on_progress": "progress",
    "command": "name",
    "restarts": "count",
    "sweep_images": "count",
    "queries": "count",
    "resubmissions": "counts",
    "targets": "count",
    "selection_votes": "count",
    "alpha": "optional level",
    "certified": "flag",
    "sigmas": "deviations",
    "sigmas_normalized": "normalized deviations",
    "noise": "noise factory",
    "radii": "radii",
    "selection_samples": "count",
    "votes_per_image": "count",
    "examples": "examples",
}
OWN = {
    ("worst_case", "eot_samples"): "counts",
    ("check", "eps"): "positive radius",
    ("check", "images"): "optional count",
    ("certify", "alpha"): "level",
    ("certify", "num_samples"): "count",
    ("attack", "examples"): "path of a file to write",
}
MORE = {"worst_case": ["targets", "selection_votes"]}
"""Parameters that a function takes under `**more`."""

# Other names that a message may begin with: parts of data, and the file at which a data set or a checkpoint fails.
ALSO = {"classifier": ("model",), "data": ("images", "labels")}
TABLE = [
    (name, argument)
    for name, good in GOOD.items()
    for argument in (*parameters(getattr(smoothed, name)), *MORE.get(name, ()))
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Examples of the attack on the images that all calls use."""
    path = tmp_path_factory.mktemp("examples") / "e.safetensors"
    smoothed.attack(Counting(), pair(), attack="fgsm", examples=path)
    return path


def arguments_of(name, saved, network):
    classifier = smoothed.Smoothed(network, smoothed.Gaussian(0.1), num_samples=2, seed=0)
    first = {"classifier": classifier, "data": pair()}
    return {**first, **({"examples": saved} if name == "evaluate_examples" else {}), **GOOD[name]}


@pytest.mark.parametrize("name", GOOD)
def test_the_arguments_of_the_table_are_right_without_a_wrong_one(name, saved):
    assert getattr(smoothed, name)(**arguments_of(name, saved, Counting())).rows


@pytest.mark.parametrize(("name", "argument"), TABLE)
def test_a_wrong_argument_is_named_in_one_line_before_any_work(name, argument, saved, tmp_path, monkeypatch):
    files, faults = Files(tmp_path), []
    monkeypatch.chdir(files.folder)
    before = files.state()
    for value in kinds(files)[OWN.get((name, argument)) or SHARED[argument]]:
        network, done = Counting(), []
        given = {"on_progress": lambda *work, done=done: done.append(work), **arguments_of(name, saved, network)}
        if argument == "sigmas_normalized":
            del given["sigmas"]
        found = fault(
            lambda given=given, value=value: getattr(smoothed, name)(**{**given, argument: value}),
            argument,
            (*ALSO.get(argument, ()), value),
        )
        if not found and (done or network.calls > 1):
            found = f"an error after {network.calls} calls of the network"
        if not found and files.state() != before:
            found = "something was written"
        if found:
            faults.append(f"{name}({argument}={described(value)}): {found}")
    assert not faults, "\n".join(faults)
