"""`Smoothed` as the model of torchattacks, foolbox, AutoAttack and adversarial-robustness-toolbox, unchanged in them.

Each attack runs on the vote, stays in its ball, and lowers the vote's accuracy, counted on fresh draws, to less than
half of what it is under random noise of the same size. The snippets of docs/other-libraries.md run as they stand.
"""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from smoothed import PNI, Gaussian, Smoothed, inject

EPS, CONTRAST, IMAGES, CLASSES = 0.06, 0.04, 24, 4


class Templates(nn.Module):
    """The class whose pattern of signs an image correlates with most; weights have noise.

    Images show their pattern with less contrast than an attacker may change, but eight times what random signs of the
    attacker's size add to a correlation with any pattern.
    """

    def __init__(self):
        super().__init__()
        signs = torch.randn(CLASSES, 192, generator=torch.Generator().manual_seed(0)).sign()
        self.linear = nn.Linear(192, CLASSES).requires_grad_(False)
        self.linear.weight.copy_(signs * 0.5)
        self.linear.bias.zero_()

    def forward(self, inputs):
        return self.linear((inputs - 0.5).flatten(1))


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        model = Templates().eval()
    inject(model, weights=PNI(initial=0.1))
    return model


@pytest.fixture
def vote(network):
    return Smoothed(network, Gaussian(0.05), vote="soft", num_samples=4, seed=0).eval()


@pytest.fixture(scope="module")
def batch(network):
    labels = torch.arange(IMAGES) % CLASSES
    grain = 0.3 * torch.rand(IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(1)) - 0.15
    with torch.no_grad():
        patterns = network.linear.weight.sign().view(CLASSES, 3, 8, 8)
    return 0.5 + grain + CONTRAST * patterns[labels], labels


@pytest.fixture(params=["shares", "logits"])
def model(request, vote):
    """What a library is given: the vote itself, or its `log_probs`."""
    return vote if request.param == "shares" else vote.as_logits()


@pytest.fixture
def check(network, batch):
    """A function that checks attacked images."""
    images, labels = batch
    fresh = Smoothed(network, Gaussian(0.05), vote="soft", num_samples=32, seed=2)

    def accuracy(inputs):
        return (fresh.predict(inputs) == labels).float().mean().item()

    def check(attacked):
        assert attacked.shape == images.shape
        assert (attacked - images).abs().max() <= EPS + 1e-6
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        signs = torch.randn(images.shape, generator=torch.Generator().manual_seed(2)).sign()
        noisy = accuracy((images + EPS * signs).clamp(0, 1))
        assert noisy > 0.9
        assert accuracy(attacked) < noisy / 2

    return check


@pytest.mark.parametrize("name", ["PGD", "EOTPGD"])
def test_torchattacks(name, model, batch, check):
    torchattacks = pytest.importorskip("torchattacks")
    options = {"eot_iter": 2} if name == "EOTPGD" else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attack = getattr(torchattacks, name)(model, eps=EPS, alpha=EPS / 4, steps=6, **options)
        check(attack(*batch))
    assert not model.training


def test_foolbox(model, batch, check):
    foolbox = pytest.importorskip("foolbox")
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=6)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _, attacked, broken = attack(wrapped, *batch, epsilons=EPS)
    check(attacked)
    assert broken.float().mean() > 0.5


def test_autoattack_rand(model, batch, check, caplog):
    pyautoattack = pytest.importorskip("pyautoattack")
    attack = pyautoattack.AutoAttack(model, eps=EPS, version="rand", seed=0)
    attack.apgd.n_iter, attack.apgd.eot_iter = 8, 2
    with torch.random.fork_rng(), caplog.at_level(logging.WARNING):
        attacked, classes = attack.run_standard_evaluation(*batch)
    check(attacked)
    assert (classes != batch[1]).float().mean() > 0.5
    assert ("probability distribution" in caplog.text) == isinstance(model, Smoothed)


def test_adversarial_robustness_toolbox(model, batch, check):
    art = pytest.importorskip("art.estimators.classification")
    evasion = pytest.importorskip("art.attacks.evasion")
    classifier = art.PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 8, 8),
        nb_classes=CLASSES,
        clip_values=(0, 1),
        device_type="cpu",
    )
    images, labels = batch[0].numpy(), batch[1].numpy()
    assert (classifier.predict(images).argmax(1) == labels).mean() > 0.9
    attack = evasion.ProjectedGradientDescent(classifier, eps=EPS, eps_step=EPS / 4, max_iter=6, verbose=False)
    check(torch.from_numpy(attack.generate(images, labels)))


def test_adversarial_robustness_toolbox_takes_the_gradient_of_the_vote(network, batch):
    """Each call draws anew, so two classifiers of one seed: theirs and the loss differentiated by hand."""
    art = pytest.importorskip("art.estimators.classification")
    images, labels = batch
    votes = [Smoothed(network, Gaussian(0.05), vote="soft", num_samples=4, seed=5).eval() for _ in range(2)]
    classifier = art.PyTorchClassifier(
        votes[0].as_logits(),
        loss=nn.CrossEntropyLoss(reduction="sum"),
        input_shape=(3, 8, 8),
        nb_classes=CLASSES,
        clip_values=(0, 1),
        device_type="cpu",
    )
    theirs = classifier.loss_gradient(images.numpy(), functional.one_hot(labels).numpy())
    inputs = images.clone().requires_grad_()
    functional.nll_loss(votes[1](inputs).log(), labels, reduction="sum").backward()
    np.testing.assert_allclose(theirs, inputs.grad.numpy(), rtol=1e-3, atol=1e-5)


PAGE = Path(__file__).parents[2] / "docs" / "other-libraries.md"
SECTIONS = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
MODULES = {
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "AutoAttack": "pyautoattack",
    "adversarial-robustness-toolbox": "art",
}


def code(section):
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return compile(block, PAGE.name, "exec")


@pytest.mark.parametrize("section", SECTIONS[1:], ids=lambda section: section.splitlines()[0])
def test_the_snippets_of_the_page_run(section, capsys):
    pytest.importorskip(MODULES[section.splitlines()[0]])
    names = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(code(SECTIONS[0]), names)  # noqa: S102
        exec(code(section), names)  # noqa: S102
    assert (names["attacked"] - names["images"]).abs().max() <= 8 / 255 + 1e-6
    assert names["attacked"].shape == (4, 3, 32, 32)
    printed = re.findall(r"^(.+) ([01]\.\d+)$", capsys.readouterr().out, re.MULTILINE)
    assert len(printed) == section.count("print(")


def test_every_library_has_its_section():
    assert [section.splitlines()[0] for section in SECTIONS[1:]] == list(MODULES)
