"""Progress inside the batches of evaluations of 40 images, beside a clock that counts the images of each pass."""

from functools import partial

import pytest
import torch
from torch import nn

import smoothed
from smoothed.evaluation.progress import PassProgress

IMAGES = 40
DATA = (
    torch.rand(IMAGES, 3, 4, 4, generator=torch.Generator().manual_seed(0)),
    torch.arange(IMAGES) % 5,
)


class Clocked(nn.Module):
    """A network of 5 classes that counts the images of its passes, with a gradient three times."""

    def __init__(self):
        super().__init__()
        self.layer, self.time = nn.Linear(48, 5), 0
        nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(1))

    def forward(self, inputs):
        self.time += len(inputs) * (3 if torch.is_grad_enabled() else 1)
        return self.layer(inputs.flatten(1))


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    file = tmp_path_factory.mktemp("examples") / "made.safetensors"
    smoothed.attack(Clocked(), DATA, attack="fgsm", examples=file)
    return file


def evaluations(examples):
    common = {"attack": "pgd", "steps": 7}
    return {
        "evaluate": partial(smoothed.evaluate, data=DATA, **common),
        "two runs": partial(smoothed.evaluate, data=DATA, runs=2, keep_images=0, **common),
        "clean": partial(smoothed.evaluate, data=DATA, attack="none"),
        "queries": partial(smoothed.evaluate, data=DATA, attack="square", max_queries=40),
        "sweep": partial(smoothed.sweep, data=DATA, sigmas=(0.0, 0.1), num_samples=64, **common),
        "attack": partial(smoothed.attack, data=DATA, **common),
        "examples": partial(smoothed.evaluate_examples, examples=examples, data=DATA),
    }


@pytest.mark.parametrize("name", ["evaluate", "two runs", "clean", "queries", "sweep", "attack", "examples"])
def test_an_evaluation_reports_many_times_and_early(name, examples):
    seen, classifier = [], smoothed.Smoothed(Clocked(), smoothed.Gaussian(0.1), num_samples=64, seed=0)
    evaluations(examples)[name](classifier, on_progress=lambda *progress: seen.append(progress))
    done, totals = zip(*seen, strict=True)
    assert len(seen) >= 10
    assert list(done) == sorted(set(done))
    assert len(set(totals)) == 1
    assert done[-1] == totals[-1]
    assert done[0] < totals[0] / 10


@pytest.mark.parametrize("name", ["evaluate", "attack", "examples"])
def test_the_reported_share_is_that_of_the_time(name, examples):
    """All votes take all draws here. A network in a layer of noise is not replaced by a faster form."""
    network, seen = Clocked(), []
    classifier = smoothed.Smoothed(network, smoothed.Gaussian(0.1), num_samples=64, layer="layer", seed=0)
    evaluations(examples)[name](classifier, on_progress=lambda done, total: seen.append((network.time, done, total)))
    start = seen[0][0] - seen[0][1]  # of passes that show what the network returns
    total = seen[-1][2]
    assert network.time - start == pytest.approx(total, rel=0.02)
    for time, done, _ in seen:
        assert done == pytest.approx(time - start, abs=0.02 * total)


def test_a_batch_that_was_loaded_is_finished_at_its_end():
    seen, network = [], nn.Identity()
    progress = PassProgress(30, lambda *now: seen.append(now))
    with progress.batch(10):
        pass
    with progress.batch(20):
        with progress.part(12, network):
            network(torch.zeros(4, 1))
        with torch.no_grad(), progress.part(8, network):
            network(torch.zeros(5, 1))
            network(torch.zeros(50, 1))  # more than estimated
    assert seen == [(10, 30), (21, 30), (27, 30), (29, 30), (30, 30)]
    assert not network._forward_hooks


def test_an_error_leaves_no_hook_behind():
    network = nn.Identity()
    with pytest.raises(ZeroDivisionError), PassProgress(1).part(1, network):
        raise ZeroDivisionError
    assert not network._forward_hooks
