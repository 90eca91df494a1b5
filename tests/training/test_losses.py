"""Each loss against its published formula, read literally in float64: value and gradient."""

from decimal import Decimal, localcontext
from itertools import product

import pytest
import torch
from torch import nn

from smoothed.rng.rows import RowGenerator, uniform_
from smoothed.training.config import TrainingConfig
from smoothed.training.losses import (
    TRAINING_LOSSES,
    adversarial_loss,
    bernoulli_loss,
    boosted_cross_entropy,
    consistency_loss,
    csat_loss,
    mart_loss,
    trades_loss,
)

IMAGES, CLASSES = 7, 5


# The formulas, for one image's probabilities: tensors, or decimals.


def ln(value):
    return value.ln() if isinstance(value, Decimal) else value.log()


def cross_entropy(p, label, smoothing=0):
    return -(1 - smoothing) * ln(p[label]) - smoothing * sum(ln(value) for value in p) / len(p)


def divergence(p, q):
    return sum(a * (ln(a) - ln(b)) for a, b in zip(p, q, strict=True))


def boosted(p, label):
    return -ln(p[label]) - ln(1 - max(p[k] for k in range(len(p)) if k != label))


def eq_6(weight, smoothing=0):
    return lambda p, q, y: (1 - weight) * cross_entropy(p, y, smoothing) + weight * cross_entropy(q, y, smoothing)


def trades(beta, smoothing=0):
    return lambda p, q, y: cross_entropy(p, y, smoothing) + beta * divergence(p, q)


def mart(beta):
    return lambda p, q, y: boosted(q, y) + beta * divergence(p, q) * (1 - p[y])


def literal(formula, model, clean, adversarial, labels):
    """The mean over images of `formula(p(x), p(x'), y)`, p a softmax written out."""
    total = 0
    for pair in zip(clean, adversarial, labels.tolist(), strict=True):
        powers = [(model[1].weight @ image.flatten() + model[1].bias).exp() for image in pair[:2]]
        total = total + formula(*(power / power.sum() for power in powers), pair[2])
    return total / len(labels)


@pytest.fixture
def model(generator):
    """A linear network in float64, (N, 3, 2, 2) to five logits."""
    layers = nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES)).double()
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.normal_(generator=generator)
    return layers


@pytest.fixture
def batch(generator):
    """Clean and adversarial images, which are leaves, and labels."""
    clean, adversarial = (
        torch.rand(IMAGES, 3, 2, 2, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)
    )
    return clean, adversarial, torch.randint(CLASSES, (IMAGES,), generator=generator)


def assert_same(model, batch, found, expected):
    """Value and gradient: of the weights, and of either side's images, through which each side's gradient flows."""
    clean, adversarial, _ = batch
    leaves = [*model.parameters(), clean, adversarial]
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    gradients = [torch.autograd.grad(value, leaves, materialize_grads=True) for value in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_equation_6(model, batch, weight, smoothing):
    found = adversarial_loss(model, *batch, weight=weight, label_smoothing=smoothing)
    assert_same(model, batch, found, literal(eq_6(weight, smoothing), model, *batch))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_trades(model, batch, beta, smoothing):
    found = trades_loss(model, *batch, beta=beta, label_smoothing=smoothing)
    assert_same(model, batch, found, literal(trades(beta, smoothing), model, *batch))


@pytest.mark.parametrize("beta", [0.0, 1.0, 5.0])
def test_mart(model, batch, beta):
    assert_same(model, batch, mart_loss(model, *batch, beta=beta), literal(mart(beta), model, *batch))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("beta", [0.0, 1.0, 10.0])
def test_consistency(model, batch, beta, smoothing):
    """CE(f(x')) + beta / K |f(x') - f(start)|^2, on logits; the gradient flows through both."""
    start, adversarial, labels = batch
    named = TRAINING_LOSSES["consistency"](TrainingConfig(loss="consistency", beta=beta, label_smoothing=smoothing))
    for loss in (named, lambda *given: consistency_loss(*given[:4], beta=beta, label_smoothing=smoothing)):
        total = 0
        for first, second, label in zip(start, adversarial, labels.tolist(), strict=True):
            before, after = (model[1].weight @ image.flatten() + model[1].bias for image in (first, second))
            powers = after.exp()
            total = total + cross_entropy(powers / powers.sum(), label, smoothing)
            total = total + beta * sum((a - b) ** 2 for a, b in zip(after, before, strict=True)) / CLASSES
        assert_same(model, batch, loss(model, *batch, None), total / IMAGES)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("beta", "gamma"), [(0.0, 0.0), (10.0, 0.0), (0.0, 0.1), (10.0, 0.1)])
def test_csat(model, batch, beta, gamma, weight, smoothing):
    """Equation 6 + beta |f(x_t) - (1 - t) f(x) - t f(x')| + gamma |f(x') - f(x)| / |x' - x|, on logits."""
    model = nn.Sequential(*model, nn.Tanh())  # a linear network departs from linearity nowhere
    options = {"beta": beta, "lipschitz_weight": gamma, "label_smoothing": smoothing}
    loss = TRAINING_LOSSES["csat"](TrainingConfig(loss="csat", adversarial_weight=weight, **options))
    clean, adversarial, labels = batch
    between = uniform_(torch.empty(IMAGES, 1, 1, 1, dtype=torch.float64), 0, 1, RowGenerator(5)).flatten().tolist()
    total = 0
    for x, attacked, label, t in zip(clean, adversarial, labels.tolist(), between, strict=True):
        images = x, attacked, (1 - t) * x + t * attacked
        before, after, there = ((model[1].weight @ image.flatten() + model[1].bias).tanh() for image in images)
        p, q = (logits.exp() / logits.exp().sum() for logits in (before, after))
        total = total + eq_6(weight, smoothing)(p, q, label)
        rows = list(zip(before, after, there, strict=True))
        total = total + beta * sum((c - (1 - t) * a - t * b) ** 2 for a, b, c in rows).sqrt()
        change, distance = sum((b - a) ** 2 for a, b, _ in rows), sum((attacked - x).flatten() ** 2)
        total = total + gamma * change.sqrt() / distance.sqrt()
    assert_same(model, batch, loss(model, *batch, RowGenerator(5)), total / IMAGES)


def test_csat_of_a_linear_network_has_no_departure_from_linearity(model, batch):
    options = {"weight": 1.0, "lipschitz_weight": 0.0}
    values = [csat_loss(model, *batch, beta=beta, **options).item() for beta in (0.0, 1e3)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)


def test_csat_on_the_images_themselves_is_their_cross_entropy(model, batch):
    clean, _, labels = batch
    found = csat_loss(model, clean, clean, labels, weight=1.0, beta=10.0, lipschitz_weight=0.1)
    assert_same(model, batch, found, literal(eq_6(1.0), model, clean, clean, labels))


# Equation 23: a coin for each image.


class Recorded(nn.Module):
    """Remembers what it was asked."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.seen = []

    def forward(self, inputs):
        self.seen.append(inputs.detach())
        return self.model(inputs)


def attacked(model, clean, adversarial, labels, weight, randomness):
    """Which images the loss took under attack, (N,); each is wholly clean or wholly adversarial."""
    recorded = Recorded(model)
    bernoulli_loss(recorded, clean, adversarial, labels, weight=weight, randomness=randomness)
    (images,) = recorded.seen
    wholly = [(images == side).flatten(1).all(1) for side in (adversarial, clean)]
    assert (wholly[0] ^ wholly[1]).all()
    return wholly[0]


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_equation_23_without_chance(model, batch, generator, weight):
    found = bernoulli_loss(model, *batch, weight=weight, label_smoothing=0.1, randomness=generator)
    assert_same(model, batch, found, literal(eq_6(weight, 0.1), model, *batch))


def test_equation_23_tosses_a_coin_for_each_image(model, generator):
    """5,000 images, q = 0.3: the share under attack has deviation 0.0065."""
    clean, labels = torch.zeros(5000, 3, 2, 2, dtype=torch.float64), torch.zeros(5000, dtype=torch.int64)
    taken = [attacked(model, clean, clean + 1, labels, 0.3, generator) for _ in range(2)]
    for coins in taken:
        assert coins.double().mean().item() == pytest.approx(0.3, abs=4 * 0.0065)
    both = (taken[0] & taken[1]).double().mean().item()
    assert both == pytest.approx(0.09, abs=4 * 0.004)  # fresh coins each time, each image's its own


@pytest.mark.slow
def test_the_expectation_over_the_coins_is_equation_6(model, batch, generator):
    """The mean of 3,000 draws, within four of its standard errors; the gradient likewise."""
    draws, leaves = 3000, list(model.parameters())
    values, slopes = [], []
    for _ in range(draws):
        loss = bernoulli_loss(model, *batch, weight=0.3, randomness=generator)
        values.append(loss.detach())
        slopes.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, leaves)]))
    expected = literal(eq_6(0.3), model, *batch)
    expected_slope = torch.cat([g.flatten() for g in torch.autograd.grad(expected, leaves)])
    for found, wanted in ((torch.stack(values), expected), (torch.stack(slopes), expected_slope)):
        assert ((found.mean(0) - wanted).abs() <= 4 * found.std(0) / draws**0.5).all()


def test_the_coins_follow_the_images(model):
    """Wherever a batch of 150 is cut, an image's coin is the one it has in the whole batch."""
    clean, labels = torch.zeros(150, 3, 2, 2, dtype=torch.float64), torch.zeros(150, dtype=torch.int64)
    whole = attacked(model, clean, clean + 1, labels, 0.5, RowGenerator(3))
    for cut in (1, 64, 97):
        pieces = [(slice(None, cut), RowGenerator(3)), (slice(cut, None), RowGenerator(3, cut))]
        coins = [attacked(model, clean[here], clean[here] + 1, labels[here], 0.5, rows) for here, rows in pieces]
        assert torch.equal(torch.cat(coins), whole)
    assert 40 < whole.sum() < 110


# What costs nothing.


@pytest.mark.parametrize(
    ("loss", "options", "sides"),
    [
        (adversarial_loss, {"weight": 0.0}, "c"),
        (adversarial_loss, {"weight": 0.5}, "ca"),
        (adversarial_loss, {"weight": 1.0}, "a"),
        (trades_loss, {"beta": 0.0}, "c"),
        (trades_loss, {"beta": 1.0}, "ca"),
        (mart_loss, {"beta": 0.0}, "a"),
        (mart_loss, {"beta": 1.0}, "ac"),
        (consistency_loss, {"beta": 0.0}, "a"),
        (consistency_loss, {"beta": 1.0}, "ac"),
    ],
)
def test_a_term_of_weight_zero_costs_no_pass(model, batch, loss, options, sides):
    clean, adversarial, labels = batch
    recorded = Recorded(model)
    loss(recorded, clean, adversarial, labels, **options)
    named = {"c": clean, "a": adversarial}
    assert len(recorded.seen) == len(sides)
    assert all(torch.equal(images, named[side]) for images, side in zip(recorded.seen, sides, strict=True))


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({"weight": 1.0, "beta": 0.0, "lipschitz_weight": 0.0}, 1),
        ({"weight": 0.5, "beta": 0.0, "lipschitz_weight": 0.0}, 2),
        ({"weight": 1.0, "beta": 0.0, "lipschitz_weight": 0.1}, 2),
        ({"weight": 0.0, "beta": 1.0, "lipschitz_weight": 0.0}, 3),
    ],
)
def test_csat_has_a_pass_for_the_image_between_only_where_it_needs_one(model, batch, options, passes):
    recorded = Recorded(model)
    csat_loss(recorded, *batch, **options)
    assert len(recorded.seen) == passes


# Near certainty: images (N, K, 1, 1) that are their own logits, against the formulas in 60 digits.

CERTAIN = 27.631021115928547  # a probability of 1 - 3e-12 among four, from this logit beside three zeros
LOGITS = [
    [CERTAIN, 0.0, 0.0, 0.0],
    [0.0, CERTAIN, 0.0, 0.0],
    [CERTAIN, CERTAIN - 0.25, 0.0, -1.0],
    [0.0, 1.0, CERTAIN, -CERTAIN],
    [-60.0, 1.0, 60.0, 0.5],
    [0.3, -0.2, 0.1, 0.7],
]
PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])


def exactly(formula, first, second, label):
    """`formula` of two rows of logits in 60 digits, and its slope by central differences of 1e-20."""

    def softmax(logits):
        powers = [value.exp() for value in logits]
        return [power / sum(powers) for power in powers]

    def value(logits):
        return formula(softmax(logits[: len(first)]), softmax(logits[len(first) :]), label)

    with localcontext() as context:
        context.prec = 60
        at, step, slope = [Decimal(logit) for logit in (*first, *second)], Decimal("1e-20"), []
        for i in range(len(at)):
            above, below = (value([v + sign * step * (j == i) for j, v in enumerate(at)]) for sign in (1, -1))
            slope.append(float((above - below) / (2 * step)))
        return float(value(at)), slope


def assert_exact(loss, formula, dtype, tolerance):
    """Each pair of rows, with each label. The tolerance is relative to the value, and to 1 where that is smaller."""
    for first, second in product(LOGITS, repeat=2):
        rows = [torch.tensor(row, dtype=dtype).view(1, 4, 1, 1).requires_grad_() for row in (first, second)]
        rounded = [row.detach().flatten().tolist() for row in rows]
        for label in range(4):
            found = loss(*rows, torch.tensor([label]))
            slope = torch.cat([g.flatten() for g in torch.autograd.grad(found, rows, materialize_grads=True)])
            expected, expected_slope = exactly(formula, *rounded, label)
            assert found.item() == pytest.approx(expected, rel=tolerance, abs=tolerance)
            # A gradient is a difference of terms as large as the value.
            room = 5 * tolerance * max(1, abs(expected))
            assert slope.tolist() == pytest.approx(expected_slope, abs=room)


@pytest.mark.slow
@PRECISIONS
@pytest.mark.parametrize(
    ("loss", "options", "formula"),
    [
        (adversarial_loss, {"weight": 0.5}, eq_6(Decimal("0.5"))),
        (trades_loss, {"beta": 6.0}, trades(6)),
        (mart_loss, {"beta": 5.0}, mart(5)),
    ],
)
def test_near_certainty(loss, options, formula, dtype, tolerance):
    def settled(first, second, labels):
        return loss(nn.Flatten(), first, second, labels, **options)

    assert_exact(settled, formula, dtype, tolerance)


@PRECISIONS
def test_boosted_cross_entropy_near_certainty(dtype, tolerance):
    """With the wrong class at 1 - 3e-12, 1 - p is 0 in float32: the formula as it is written gives infinity there."""

    def loss(_, second, labels):
        return boosted_cross_entropy(second.flatten(1), labels).sum()

    assert_exact(loss, lambda _, q, y: boosted(q, y), dtype, tolerance)


def test_half_precision_logits_become_float32(batch):
    """The loss of bf16 logits is the loss of the same numbers in float64, to float32's rounding."""
    images = [side.detach().flatten(1)[:, :CLASSES].bfloat16().view(IMAGES, CLASSES, 1, 1) for side in batch[:2]]
    for loss, options in ((adversarial_loss, {"weight": 0.5}), (trades_loss, {"beta": 6.0}), (mart_loss, {"beta": 5})):
        half = loss(nn.Flatten(), *images, batch[2], **options)
        double = loss(nn.Flatten(), *[side.double() for side in images], batch[2], **options)
        assert half.dtype == torch.float32
        assert half.item() == pytest.approx(double.item(), rel=1e-5)


# By name.


@pytest.mark.parametrize(
    ("name", "options", "formula"),
    [
        ("adversarial", {"adversarial_weight": 0.3, "label_smoothing": 0.1}, eq_6(0.3, 0.1)),
        ("trades", {"beta": 2.5, "label_smoothing": 0.1}, trades(2.5, 0.1)),
        ("mart", {"beta": 2.5}, mart(2.5)),
    ],
)
def test_a_configuration_settles_the_options(model, batch, name, options, formula):
    loss = TRAINING_LOSSES[name](TrainingConfig(loss=name, **options))
    assert_same(model, batch, loss(model, *batch, None), literal(formula, model, *batch))


def test_a_configuration_settles_the_coins(model, batch):
    clean, adversarial, labels = batch
    config = TrainingConfig(loss="bernoulli", adversarial_weight=0.6, label_smoothing=0.1)
    found = TRAINING_LOSSES["bernoulli"](config)(model, *batch, RowGenerator(8))
    coins = attacked(model, clean.detach(), adversarial.detach(), labels, 0.6, RowGenerator(8))
    assert 0 < coins.sum() < IMAGES
    images = torch.where(coins.view(-1, 1, 1, 1), adversarial, clean)
    assert_same(model, batch, found, literal(eq_6(0.0, 0.1), model, images, images, labels))
