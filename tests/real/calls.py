"""Every public call at a small size, and what must hold of it whatever the network and the images are."""

import copy
import json
from functools import partial

import torch
from torch import nn

import smoothed
from smoothed import Gaussian, Result, Smoothed

QUICK = {"eps": 4 / 255, "steps": 1}
FEW = {"restarts": 1, "eot_samples": (1,), "queries": 2, "resubmissions": (1, 2), "targets": 1, "selection_votes": 1}
CALLS = {
    "evaluate": partial(smoothed.evaluate, attack="epgd", eot_samples=2, num_samples=(1, 3), **QUICK),
    "worst_case": partial(smoothed.worst_case, **FEW, **QUICK),
    "sweep": partial(
        smoothed.sweep, sigmas=(0.0, 0.1), votes=("prediction",), num_samples=(1, 2), attack="fgsm", eps=4 / 255
    ),
    "certify": partial(smoothed.certify, radii=(0.0, 0.1), selection_samples=4, num_samples=12),
    "check": partial(smoothed.check, eot_samples=1, images=None, **QUICK),
    "attack": partial(smoothed.attack, attack="pgd", **QUICK),
}


def untouched(model):
    """A check that a model is as it was at this call."""
    before = copy.deepcopy(model.state_dict()) if isinstance(model, nn.Module) else {}

    def check():
        if before:
            assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
            assert not any(module.training for module in model.modules())
            assert all(parameter.grad is None for parameter in model.parameters())

    return check


def as_read(result):
    """The JSON values of a result as a file gives them back."""
    return json.loads(json.dumps(result.to_json()))


def check_call(call, given, path, *, classes_checked="number", **options):
    """Call a public function on the network and the data of a `Case`; the result is saved to `path` and read again."""
    check_untouched = untouched(given.load["model"])
    classifier = Smoothed(smoothed.load(**given.load), Gaussian(0.1), num_samples=3, seed=0)
    result = CALLS[call](classifier, given.data, name="foreign", **options)
    assert (result.kind, result.model["name"]) == (call.replace("_", "-"), "foreign")
    assert (result.data["images"], result.data["classes_checked"]) == (len(given.images), classes_checked)
    again = Result.load(result.save(path))
    assert as_read(again) == as_read(result)
    assert str(again) == str(result)
    assert again.tensors.keys() == result.tensors.keys()
    assert all(torch.equal(tensor, again.tensors[key]) for key, tensor in result.tensors.items())
    check_untouched()
    return result


def check_clean_accuracy(given, **options):
    """A plain network is right on the images on which it is right in plain torch."""
    with torch.no_grad():
        right = given.logits(given.images).argmax(1) == given.labels
    result = smoothed.evaluate(smoothed.load(**given.load), given.data, attack="none", **options)
    (row,) = result.rows
    assert abs(row["clean"] - float(right.double().mean())) < 1e-12
    assert torch.equal(result.tensors["clean.right"][0, 0].bool(), right)
