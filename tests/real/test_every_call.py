"""Each public call takes networks and images of every kind, and gives a result that is saved, read and printed."""

from functools import cache, partial

import pytest
import torch

import smoothed
from real.calls import CALLS, check_call, check_clean_accuracy, untouched
from real.foreign import CASES, Records

SLOW = {
    ("224 x 224, 1,000 classes", "check"),
    ("224 x 224, 1,000 classes", "worst_case"),
    ("torchvision's ResNet", "check"),
    ("torchvision's ResNet", "worst_case"),
}
PAIRS = [
    pytest.param(name, call, marks=[pytest.mark.slow] * ((name, call) in SLOW)) for name in CASES for call in CALLS
]


@cache
def case(name):
    return CASES[name]()


def keys(case):
    return {"keys": ("photo", "part")} if isinstance(case.data, Records) else {}


@pytest.mark.parametrize(("name", "call"), PAIRS)
def test_every_call_on_every_kind(name, call, tmp_path):
    given = case(name)
    check_call(call, given, tmp_path / "result.json", **keys(given))


@pytest.mark.parametrize("name", CASES)
def test_a_plain_network_is_right_where_it_is_in_plain_torch(name):
    given = case(name)
    check_clean_accuracy(given, **keys(given))


@pytest.mark.parametrize("name", CASES)
def test_training_gives_a_new_network_of_the_same_kind(name):
    given = case(name)
    settings = {
        "epochs": 2,
        "batch_size": 4,
        "eps": 2 / 255,
        "augmentation": "none",
        "validation_attack_images": 2,
        "schedule": "steps",
    }
    check_untouched = untouched(given.load["model"])
    network = smoothed.load(**given.load)
    train = partial(smoothed.train, network, given.data, recipe="fgsm-rs", **settings, **keys(given))
    if name.endswith("16 model"):
        with pytest.raises(
            smoothed.ArgumentError, match=r"weights in float32, got torch\.\w+; call network\.float\(\)"
        ):
            train()
        return
    if name == "a function with probabilities":
        with pytest.raises(smoothed.ArgumentError, match="network: expected parameters that require gradients"):
            train()
        return
    trained = train()
    check_untouched()
    assert trained.finished
    changed = zip(trained.model.parameters(), network.parameters(), strict=True)
    assert any(not torch.equal(after, before) for after, before in changed)
    evaluated = smoothed.evaluate(trained.model, given.data, attack="none", **keys(given))
    shares = evaluated.tensors["clean.shares"]
    assert shares.shape == (1, len(given.images), given.logits(given.images[:1]).shape[1])
