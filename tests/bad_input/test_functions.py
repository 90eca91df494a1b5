"""Every argument of the other public functions and classes, tried with wrong values of every kind."""

from contextlib import nullcontext
from dataclasses import fields
from functools import partial
from operator import attrgetter

import pytest
import torch
from torch import nn

import smoothed
import smoothed.smoothing.config
from bad_input.wrong import Counting, Files, described, fault, kinds, pair, parameters

pytestmark = pytest.mark.slow

IMAGES, LABELS = pair()
ON_IMAGES = {"inputs": IMAGES, "labels": LABELS}
ATTACKED = {"model": Counting, **ON_IMAGES}
IN_BALL = {**ATTACKED, "eps": 0.03}
FEW = {"steps": 1}


def public(name):
    """The public function, class or method of this name."""
    return attrgetter(name)(smoothed)


def call(name, arguments):
    """Call the function of this name, and enter the context manager that it returns if it is one of those."""
    returned = public(name)(**arguments)
    with returned if name in CONTEXTS else nullcontext():
        pass


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


def result():
    return smoothed.Result("evaluate", [{"accuracy": 0.5}])


def run_without_epochs():
    return smoothed.Result("train", [], summary={"kept": {}})


def stored_result(folder):
    """The path of a result."""
    return result().save(folder / "result.json")


def tally():
    return smoothed.Tally(torch.ones(4, 2), torch.full((4,), 2))


CARLINI_WAGNER = ("carlini_wagner_l2", "carlini_wagner_linf", "carlini_wagner_l0")
EXPECTATIONS = ("expected_loss", "expected_probabilities", "expected_logits", "expected_vote")

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
    "noise_from": {"model": noisy, "source": None},
    "Smoothed": {"model": Counting, "noise": partial(smoothed.Gaussian, 0.1)},
    **{f"Smoothed.{name}": {"self": vote, "inputs": IMAGES} for name in ("forward", "log_probs", "predict", "tally")},
    "Tally.classes": {"self": tally, "ties": "random"},
    "LogProbs": {"smoothed": vote},
    "NoisyClassifier": {"model": Counting, "noise": partial(smoothed.Gaussian, 0.1)},
    "ModelAdapter": {"model": Counting},
    "Normalize": {"mean": (0.5,), "std": (0.2,)},
    "Fast": {"model": Counting},
    "Gaussian": {"sigma": 0.1},
    "Laplace": {"sigma": 0.1},
    "Uniform": {"sigma": 0.1},
    "Gaussian.normalized": {"sigma": 0.1, "std": (0.2,)},
    "smoothing.config.NoiseConfig": {"sigma": 0.1},
    "smoothing.config.SmoothingConfig": {},
    "TrainingConfig": {},
    "Result": {"kind": "evaluate", "rows": list},
    "Result.load": {"path": stored_result},
    "Result.save": {"self": result, "path": "result.json"},
    "Result.report": {"self": run_without_epochs, "path": "report.html"},
    "CNI": {},
    "PNI": {},
    "Additive": {},
    "RandomizedDiscretization": {},
    "GaussianPosterior": {},
    "VariationalDropout": {},
    "certify_inputs": {"smoothed": vote, "inputs": IMAGES, "selection_samples": 2, "num_samples": 20},
    "predict_or_abstain": {"smoothed": vote, "inputs": IMAGES, "num_samples": 20},
    "votes.by_rank": {"weights": (1.0, 0.5)},
    "votes.top_two": {"second": 0.5},
    "votes.with_bound": {"function": lambda: smoothed.votes.soft, "spread": 1.0},
    "stopping.Budget": {},
    "stopping.Confident": {},
    "stopping.TrueMode": {},
    "stopping.resolve_stopping_rule": {"stop": "exact"},
    "attacks.AttackOptions": {"eps": 0.03},
    "attacks.named_attack": {"name": "pgd", "eps": 0.03},
    "attacks.bpda": {"function": lambda: torch.round},
    "attacks.one_draw_loss": {},
    **{f"attacks.{name}": {"eot_samples": 2} for name in EXPECTATIONS},
    **{f"attacks.{name}": {**IN_BALL, **FEW} for name in ("pgd", "apgd", "multi_targeted_pgd", "divergence_pgd")},
    "attacks.apgd_targeted": {**IN_BALL, **FEW, "loss": lambda: smoothed.attacks.targeted_margin},
    **{f"attacks.{name}": IN_BALL for name in ("fgsm", "fgsm_random_start", "nfgsm")},
    **{f"attacks.{name}": {**ATTACKED, **FEW} for name in ("ddn", *CARLINI_WAGNER)},
    "attacks.fosc": {**IN_BALL, "adversarial": IMAGES},
    "attacks.square": {**IN_BALL, "max_queries": 3},
    "attacks.nattack": {**IN_BALL, "max_queries": 11, "population": 5},
    "attacks.zoo": {**IN_BALL, "max_queries": 11, "coordinates": 2},
    "attacks.bayesian": {**IN_BALL, "max_queries": 4, "initial_queries": 3, "candidates": 2, "tile_side": 2},
    "attacks.transfer": {
        **ATTACKED,
        "sources": lambda: [Counting(), Counting()],
        "attack": lambda: darker,
        "query_target": True,
    },
    "attacks.substitute_attack": {**ATTACKED, "attack": lambda: darker, "rounds": 1, "epochs": 1},
    "attacks.train_substitute": {"model": Counting, "inputs": IMAGES, "rounds": 1, "epochs": 1},
    "attacks.EOT": {"model": Counting},
    "attacks.Ensemble": {"models": lambda: [Counting()]},
    "attacks.Queries": {"model": Counting},
    "attacks.within_radius": {"attack": lambda: darker, "eps": 0.03, "norm": "linf"},
}  # fmt: skip

CONTEXTS = ("noise_from", "noiseless", "frozen")
QUERY_ATTACKS = ("square", "nattack", "zoo", "bayesian")
ATTACKS = [name.removeprefix("attacks.") for name, good in GOOD.items() if {"model", "inputs"} <= {*good}]
CONFIG_KINDS = {
    "recipe": "text",
    "start": "name",
    "eps": "radius",
    "seed": "seed",
    "adversarial_weight": "share",
    "label_smoothing": "share",
    "average": "share",
    "eps_warmup": "share",
    "steps_warmup": "share",
    "nfgsm_warmup": "share",
}
"""Fields of a `TrainingConfig` that take other values than the other fields of their type."""


def config_kind(field):
    """The kind of a field of `TrainingConfig`."""
    of_type = {bool: "flag", int: "count", float: "not negative", str: "choice"}
    return CONFIG_KINDS.get(field.name) or of_type[type(field.default)]


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
    "initial_alpha": "not negative",
    "initial_sigma": "not negative",
    "prior_sigma": "positive",
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
    "eps": "radius of an attack",
    "step_size": "length of a step",
    "steps": "count",
    "norm": "choice",
    "objective": "objective",
    "make_objective": "factory",
    "loss": "loss",
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
    "colors": "count",
    "stand_in": "choice",
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
    "pack_draws": "optional flag",
    "max_stored_draws": "count",
    "transform": "function",
    "early_stop": "flag",
    "abort_early": "flag",
    "unit_gradients": "flag",
    "query_target": "flag",
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
    "start": "images to start from",
    "adversarial": "images to start from",
    "p_init": "share",
    "remeasure_every": "optional not negative",
    "difference": "positive",
    "distance_weight": "not negative",
    "largest": "optional not negative",
    "substitute": "optional network",
    "rounds": "count",
    "epochs": "count",
    "period": "count",
    "relative_step_size": "not negative",
    "backward": "required function",
    "votes": "votes of a tally",
    "processes": "processes",
    "ties": "choice",
    "source": "source of noise",
    "sigma_normalized": "optional not negative",
    "law": "choice",
    "custom": "function",
    "kind": "choice",
    "rows": "list",
    "setting": "dict",
    "provenance": "dict",
    "summary": "dict",
    "comparisons": "list",
    "tensors": "dict",
    "against": "result to compare",
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
    ("attacks.substitute_attack", "labels"): "types of labels",
    ("attacks.transfer", "attack"): "required function",
    ("votes.by_rank", "weights"): "weights of ranks",
    ("votes.top_two", "second"): "not negative",
    ("Normalize", "mean"): "statistics",
    ("certify_inputs", "smoothed"): "network",
    ("predict_or_abstain", "smoothed"): "network",
    ("attacks.within_radius", "eps"): "not negative",
    ("attacks.AttackOptions", "eps"): "not negative",
    ("attacks.AttackOptions", "sources"): "sources of options",
    ("attacks.apgd_targeted", "loss"): "factory",
    ("attacks.named_attack", "name"): "choice",
    ("attacks.train_substitute", "step_size"): "not negative",
    **{(f"attacks.{name}", "step_size"): "not negative" for name in CARLINI_WAGNER},
    **{(f"attacks.{name}", "loss"): "required function" for name in ("one_draw_loss", *EXPECTATIONS)},
    **{(f"attacks.{name}", "confidence"): "number or infinity" for name in QUERY_ATTACKS},
    **{(f"attacks.{name}", "model"): "attacked model" for name in ATTACKS},
    ("Smoothed.tally", "num_samples"): "counts of draws",
    ("Gaussian.normalized", "sigma"): "not negative",
    ("smoothing.config.NoiseConfig", "sigma"): "not negative",
    ("smoothing.config.SmoothingConfig", "noise"): "input noise",
    ("smoothing.config.SmoothingConfig", "layer"): "name",
    ("Result", "model"): "dict",
    ("Result", "data"): "dict",
    ("Result.load", "path"): "result to read",
    ("Result.save", "path"): "path of a result to write",
    ("Result.report", "path"): "path of a page to write",
    **{("TrainingConfig", field.name): config_kind(field) for field in fields(smoothed.TrainingConfig)},
}
ALSO = {
    ("train", "data"): ("network",),
    ("train", "network"): ("model",),
    ("smoothing.config.NoiseConfig", "law"): ("noise",),
    ("attacks.named_attack", "name"): ("attack",),
    **{(f"attacks.{name}", "make_objective"): ("objective",) for name in ATTACKS},
}
"""Other names that a message may begin with: data of more classes does not fit the network, options of the command
line have other names than fields, and what a function returns is an objective."""
TABLE = [(name, argument) for name in GOOD for argument in parameters(public(name)) if argument != "self"]


def made(value, folder):
    if value in (stored, stored_result):
        return value(folder)
    return value() if callable(value) else value


@pytest.mark.parametrize("name", GOOD)
def test_the_arguments_of_the_table_are_right_without_a_wrong_one(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call(name, {argument: made(value, tmp_path) for argument, value in GOOD[name].items()})


@pytest.mark.parametrize(("name", "argument"), TABLE)
def test_a_wrong_argument_is_named_in_one_line_and_nothing_is_written(name, argument, tmp_path, monkeypatch):
    files, faults = Files(tmp_path), []
    monkeypatch.chdir(files.folder)
    good = {key: made(value, tmp_path) for key, value in GOOD[name].items()}
    before = files.state()
    for value in kinds(files)[OWN.get((name, argument)) or SHARED[argument]]:
        found = fault(
            lambda value=value: call(name, {**good, argument: value}),
            argument,
            (value, *ALSO.get((name, argument), ())),
        )
        if not found and files.state() != before:
            found = "something was written"
        if found:
            faults.append(f"{name}({argument}={described(value)}): {found}")
    assert not faults, "\n".join(faults)


WITHOUT_ARGUMENTS = {"bundled", "keep_memory", "stopping.Exact"}

MADE_BY_THE_PACKAGE = {
    "ArgumentError", "Calibration", "Certificate", "CheckpointError", "DataError", "DivergedError", "Injection",
    "NoiseStrengthWarning", "OutputError", "ProcessError", "Processes", "Recipe", "SigmaWarning", "SmoothedError",
    "Tally", "TooFewSamplesWarning", "TrainedModel", "stopping.StoppingProblem", "stopping.VoteState",
}  # fmt: skip
"""Errors, warnings and records, which users read."""

TYPES = {"attacks.Attack", "attacks.Loss", "attacks.Objective", "stopping.Monitor", "stopping.StoppingRule"}
"""Forms of functions and objects, for annotations."""

LOSSES = {f"attacks.{name}" for name in ("cross_entropy", "dlr", "margin", "targeted_dlr", "targeted_margin")}
"""Losses, which objectives call at each step with logits and labels that they have checked."""

EVALUATIONS = {"attack", "certify", "check", "evaluate", "evaluate_examples", "sweep", "worst_case"}
"""Functions that `test_evaluations.py` tries."""


def public_names():
    """Names of all public functions and classes, those of the public modules with the module before a dot."""
    modules = {"": smoothed, "attacks.": smoothed.attacks, "stopping.": smoothed.stopping}
    names = {f"{prefix}{name}" for prefix, module in modules.items() for name in module.__all__}
    return {name for name in names if callable(public(name))}


def test_every_public_function_is_in_the_table_or_among_the_exceptions():
    exceptions = WITHOUT_ARGUMENTS | MADE_BY_THE_PACKAGE | TYPES | LOSSES | EVALUATIONS
    assert public_names() - {*GOOD} == exceptions
