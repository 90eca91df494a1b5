"""Every argument of the other public functions and classes, tried with wrong values of every kind."""

from functools import partial
from operator import attrgetter

import pytest
from torch import nn

import smoothed
from bad_input.wrong import Counting, Files, described, fault, kinds, pair, parameters

pytestmark = pytest.mark.slow

IMAGES, LABELS = pair()
ON_IMAGES = {"inputs": IMAGES, "labels": LABELS}
ATTACKED = {"model": Counting, **ON_IMAGES}
IN_BALL = {**ATTACKED, "eps": 0.03}
FEW = {"steps": 1}


def public(name):
    """The public function or class of this name."""
    return attrgetter(name)(smoothed)


def vote():
    return smoothed.Smoothed(Counting(), smoothed.Gaussian(0.1), num_samples=2, seed=0)


def noisy():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).eval()
    smoothed.inject(network, weights=smoothed.PNI())
    return network


def darker(_model, inputs, _labels, generator=None):
    del generator
    return inputs


def stored(folder):
    """The path of a small network's checkpoint."""
    return smoothed.save(folder / "net.safetensors", Counting(), {"architecture": "custom"})


CARLINI_WAGNER = ("carlini_wagner_l2", "carlini_wagner_linf", "carlini_wagner_l0")

# Each public function with arguments that are right; classes and functions among them are called for each call.
GOOD = {
    "load": {"model": Counting},
    "train": {
        "network": Counting, "data": pair, "recipe": "nfgsm", "epochs": 1, "batch_size": 2, "augmentation": "none",
        "injection": "none", "validation": pair,
    },
    "build": {"architecture": "resnet20"},
    "save": {"path": "net.safetensors", "model": Counting, "header": dict},
    "load_into": {"model": Counting, "path": stored},
    "read_header": {"path": stored},
    "inject": {"model": Counting, "weights": smoothed.PNI},
    "calibrate_noise": {"model": noisy, "images": IMAGES, "labels": LABELS, "num_samples": 1, "largest_loss": 0.99},
    "frozen": {"model": noisy},
    "noiseless": {"model": noisy},
    "Smoothed": {"model": Counting, "noise": partial(smoothed.Gaussian, 0.1)},
    "LogProbs": {"smoothed": vote},
    "NoisyClassifier": {"model": Counting, "noise": partial(smoothed.Gaussian, 0.1)},
    "ModelAdapter": {"model": Counting},
    "Normalize": {"mean": (0.5,), "std": (0.2,)},
    "Fast": {"model": Counting},
    "Gaussian": {"sigma": 0.1},
    "Laplace": {"sigma": 0.1},
    "Uniform": {"sigma": 0.1},
    "CNI": {},
    "PNI": {},
    "Additive": {},
    "certify_inputs": {"smoothed": vote, "inputs": IMAGES, "selection_samples": 2, "num_samples": 20},
    "predict_or_abstain": {"smoothed": vote, "inputs": IMAGES, "num_samples": 20},
    "votes.by_rank": {"weights": (1.0, 0.5)},
    "votes.top_two": {"second": 0.5},
    "votes.with_bound": {"function": lambda: smoothed.votes.soft, "spread": 1.0},
    "stopping.Budget": {},
    "stopping.Confident": {},
    "stopping.TrueMode": {},
    **{f"attacks.{name}": {**IN_BALL, **FEW} for name in ("pgd", "apgd", "multi_targeted_pgd", "divergence_pgd")},
    "attacks.apgd_targeted": {**IN_BALL, **FEW, "loss": lambda: smoothed.attacks.targeted_margin},
    **{f"attacks.{name}": IN_BALL for name in ("fgsm", "fgsm_random_start", "nfgsm")},
    **{f"attacks.{name}": {**ATTACKED, **FEW} for name in ("ddn", *CARLINI_WAGNER)},
    "attacks.square": {**IN_BALL, "max_queries": 3},
    "attacks.nattack": {**IN_BALL, "max_queries": 11, "population": 5},
    "attacks.zoo": {**IN_BALL, "max_queries": 11, "coordinates": 2},
    "attacks.bayesian": {**IN_BALL, "max_queries": 4, "initial_queries": 3, "candidates": 2, "tile_side": 2},
    "attacks.transfer": {**ATTACKED, "sources": Counting, "attack": lambda: darker},
    "attacks.EOT": {"model": Counting},
    "attacks.Ensemble": {"models": lambda: [Counting()]},
    "attacks.Queries": {"model": Counting},
    "attacks.within_radius": {"attack": lambda: darker, "eps": 0.03, "norm": "linf"},
}  # fmt: skip

ATTACKS = [name.removeprefix("attacks.") for name in GOOD if name.startswith("attacks.")]
UNTESTED = (
    "model",
    "targeted",
    "random_start",
    "generator",
    "objective",
    "make_objective",
    "loss",
    "sources",
    "models",
)
"""Parameters of attacks that are called, or only tested for truth: what fails in them is Python's own error."""

SHARED = {
    "model": "model",
    "network": "network",
    "model_args": "model arguments",
    "weights": "optional file to read",
    "normalize": "normalize",
    "outputs": "choice",
    "device": "device",
    "data": "data",
    "recipe": "recipe",
    "out": "path of a folder to write",
    "time_limit": "optional not negative",
    "on_progress": "progress",
    "keys": "keys",
    "compiled": "flag",
    "architecture": "choice",
    "num_classes": "count",
    "mean": "statistics",
    "std": "standard deviations",
    "path": "file to read",
    "header": "header",
    "activations": "injected",
    "images": "images",
    "inputs": "images",
    "labels": "labels",
    "largest_loss": "share",
    "largest_strength": "positive",
    "tolerance": "positive",
    "num_samples": "count",
    "batch_size": "count",
    "noise": "function",
    "vote": "vote",
    "layer": "layer",
    "chunk_size": "chunk size",
    "stop": "stop",
    "smoothed": "model",
    "precision": "choice",
    "compile": "flag",
    "sigma": "deviation",
    "rank": "count",
    "site": "choice",
    "granularity": "choice",
    "initial": "not negative",
    "initial_variance": "not negative",
    "initial_factor": "not negative",
    "learned": "flag",
    "alpha": "level",
    "selection_samples": "count",
    "first_image": "not negative integer",
    "generator": "generator",
    "second": "share",
    "function": "required function",
    "spread": "not negative",
    "delta": "level of a stop",
    "guarantee": "choice",
    "prior_weight": "positive",
    "eps": "not negative",
    "step_size": "optional not negative",
    "steps": "count",
    "norm": "choice",
    "objective": "function",
    "make_objective": "required function",
    "loss": "required function",
    "targeted": "flag",
    "restarts": "count",
    "random_start": "flag",
    "num_targets": "optional count",
    "start_eps": "optional not negative",
    "confidence": "not negative",
    "max_queries": "optional count",
    "population": "count",
    "coordinates": "count",
    "initial_queries": "count",
    "candidates": "count",
    "tile_side": "count",
    "upsampling": "choice",
    "eot_samples": "count",
    "sources": "networks",
    "attack": "required function",
    "average": "choice",
    "models": "networks",
    "sees": "choice",
    "seed": "seed",
    "validation": "validation",
    "layers": "layers",
    "strength": "not negative",
    "pack_draws": "untested",
    "max_stored_draws": "count",
    "transform": "untested",
    "early_stop": "untested",
    "abort_early": "untested",
    "unit_gradients": "untested",
    "query_target": "untested",
    "initial_const": "not negative",
    "largest_const": "not negative",
    "search_steps": "count",
    "binary_search_steps": "count",
    "decrease_factor": "open share",
    "gamma": "open share",
    "initial_eps": "not negative",
    "levels": "optional count",
    "learning_rate": "not negative",
    "momentum": "not negative",
    "start": "untested",
    "p_init": "share",
    "remeasure_every": "optional not negative",
    "difference": "positive",
    "distance_weight": "not negative",
    "largest": "optional not negative",
}
OWN = {
    ("train", "attack"): "training attack",
    ("train", "seed"): "optional seed",
    ("Smoothed", "seed"): "optional seed",
    ("stopping.Budget", "mean"): "mean draws",
    ("CNI", "rank"): "not negative integer",
    ("save", "path"): "path of a file to write",
    ("save", "model"): "network",
    ("load_into", "model"): "network",
    ("inject", "model"): "network",
    ("inject", "weights"): "injected",
    ("calibrate_noise", "model"): "network",
    ("Fast", "model"): "network",
    ("load", "model"): "model to load",
    ("attacks.transfer", "labels"): "types of labels",
    ("attacks.transfer", "attack"): "required function",
    ("votes.by_rank", "weights"): "weights of ranks",
    ("votes.top_two", "second"): "not negative",
    ("Normalize", "mean"): "statistics",
    ("certify_inputs", "smoothed"): "network",
    ("predict_or_abstain", "smoothed"): "network",
    ("attacks.within_radius", "eps"): "not negative",
    **{(f"attacks.{name}", "confidence"): "number or infinity" for name in ("square", "nattack", "zoo", "bayesian")},
    **{(f"attacks.{name}", argument): "untested" for name in ATTACKS for argument in UNTESTED},
}
ALSO = {("train", "data"): ("network",), ("train", "network"): ("model",)}
"""Other names that a message may begin with: data of more classes does not fit the network."""
TABLE = [(name, argument) for name in GOOD for argument in parameters(public(name))]


def made(value, folder):
    if value is stored:
        return stored(folder)
    return value() if callable(value) else value


@pytest.mark.parametrize("name", GOOD)
def test_the_arguments_of_the_table_are_right_without_a_wrong_one(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    public(name)(**{argument: made(value, tmp_path) for argument, value in GOOD[name].items()})


@pytest.mark.parametrize(("name", "argument"), TABLE)
def test_a_wrong_argument_is_named_in_one_line_and_nothing_is_written(name, argument, tmp_path, monkeypatch):
    files, faults = Files(tmp_path), []
    monkeypatch.chdir(files.folder)
    good = {key: made(value, tmp_path) for key, value in GOOD[name].items()}
    before = files.state()
    for value in kinds(files)[OWN.get((name, argument)) or SHARED[argument]]:
        found = fault(
            lambda value=value: public(name)(**{**good, argument: value}),
            argument,
            (value, *ALSO.get((name, argument), ())),
        )
        if not found and files.state() != before:
            found = "something was written"
        if found:
            faults.append(f"{name}({argument}={described(value)}): {found}")
    assert not faults, "\n".join(faults)


RECORDS = {
    "ArgumentError", "Calibration", "Certificate", "CheckpointError", "DataError", "DivergedError", "Injection",
    "NoiseStrengthWarning", "OutputError", "ProcessError", "Processes", "Recipe", "Result", "SigmaWarning",
    "SmoothedError", "Tally", "TooFewSamplesWarning", "TrainedModel",
}  # fmt: skip
"""Errors, warnings and records, which the package makes rather than users."""

ELSEWHERE = {"TrainingConfig", "noise_from", "bundled", "keep_memory"}
"""Settings that the options of `smoothed train` cover, and functions without arguments or of one made object."""

EVALUATIONS = {"attack", "certify", "check", "evaluate", "evaluate_examples", "sweep", "worst_case"}


def test_every_public_function_has_its_place():
    names = {name for name in smoothed.__all__ if callable(getattr(smoothed, name))}
    assert names - RECORDS - ELSEWHERE - EVALUATIONS == {name for name in GOOD if "." not in name}
