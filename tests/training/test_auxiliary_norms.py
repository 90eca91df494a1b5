"""AdvProp: the loss and its gradients with two sets of norms, written out; what uses which set; what is kept."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from smoothed.acceleration.fusing import fuse
from smoothed.checkpoint import load, read_tensors
from smoothed.errors import ArgumentError
from smoothed.models import build
from smoothed.training.auxiliary_norms import AuxiliaryNorms
from smoothed.training.batch import Share
from smoothed.training.config import TrainingConfig
from smoothed.training.loop import train
from smoothed.training.losses import TRAINING_LOSSES
from smoothed.training.step import take_step
from smoothed.utils.modes import batch_statistics, eval_mode

sys.path.insert(0, str(Path(__file__).parent))
from tiny_run import tiny_set

IMAGES = 8


def randomised(norm, seed):
    """Batch norms whose factors, shifts and statistics are as no initialisation leaves them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        norm.weight.normal_(1, 0.5, generator=generator)
        norm.bias.normal_(0, 0.5, generator=generator)
        norm.running_mean.normal_(0, 0.5, generator=generator)
        norm.running_var.uniform_(0.3, 3, generator=generator)


def make_network():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = nn.Conv2d(3, 5, 3, bias=False)
        return nn.Sequential(first, nn.BatchNorm2d(5), nn.Tanh(), nn.Flatten(), nn.Linear(5 * 36, 4))


@pytest.fixture
def both():
    """A network in float64, and the same with its two sets of norms, which differ."""
    network = make_network().double().train()
    norms = AuxiliaryNorms(network)
    for seed, norm in enumerate((network[1], norms.auxiliary[0])):
        randomised(norm, seed)
    return network, norms


@pytest.fixture
def batch(generator):
    clean = torch.rand(IMAGES, 3, 8, 8, generator=generator, dtype=torch.float64)
    adversarial = (clean + 0.1 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return clean, adversarial, torch.randint(4, (IMAGES,), generator=generator)


def literal_logits(network, norm, images):
    """The network with a batch norm of given factors and shifts, by the statistics of the batch."""
    features = nn.functional.conv2d(images, network[0].weight)
    mean = features.mean((0, 2, 3), keepdim=True)
    variance = (features - mean).square().mean((0, 2, 3), keepdim=True)
    scaled = (features - mean) / (variance + 1e-5).sqrt() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    return scaled.tanh().flatten(1) @ network[4].weight.T + network[4].bias


def literal_loss(name, clean, adversarial, labels):
    """The loss of the logits of clean images, by the main norms, and of adversarial ones, by the auxiliary norms."""
    p, q, total = clean.softmax(1), adversarial.softmax(1), 0
    for i, y in enumerate(labels.tolist()):
        divergence = sum(p[i, k] * (p[i, k].log() - q[i, k].log()) for k in range(4))
        if name == "adversarial":
            total = total - 0.7 * p[i, y].log() - 0.3 * q[i, y].log()
        elif name == "trades":
            total = total - p[i, y].log() + 6 * divergence
        else:
            wrong = max(q[i, k] for k in range(4) if k != y)
            total = total - q[i, y].log() - (1 - wrong).log() + 6 * divergence * (1 - p[i, y])
    return total / len(labels)


@pytest.mark.parametrize("name", ["adversarial", "trades", "mart"])
def test_loss_and_gradients_are_those_of_two_sets(both, batch, name):
    (network, norms), (clean, adversarial, labels) = both, batch
    config = TrainingConfig(loss=name, adversarial_weight=0.3, beta=6.0, auxiliary_norms=True)
    routed = norms.routed(network, adversarial)
    found = TRAINING_LOSSES[name](config)(routed, clean, adversarial, labels, None)
    logits = [
        literal_logits(network, norm, images)
        for norm, images in ((network[1], clean), (norms.auxiliary[0], adversarial))
    ]
    expected = literal_loss(name, *logits, labels)
    assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    parameters = list(norms.parameters())
    assert len(parameters) == 7
    gradients = [torch.autograd.grad(loss, parameters) for loss in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.abs().max() > 1e-4
        assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_each_set_has_the_statistics_of_its_images(both, batch):
    (network, norms), (clean, adversarial, _) = both, batch
    main, auxiliary = network[1], norms.auxiliary[0]
    expected = []
    for norm, images in ((main, clean), (auxiliary, adversarial)):
        features = nn.functional.conv2d(images, network[0].weight)
        expected.append(0.9 * norm.running_mean + 0.1 * features.mean((0, 2, 3)))
    routed = norms.routed(network, adversarial)
    routed(clean), routed(adversarial)
    for norm, mean in zip((main, auxiliary), expected, strict=True):
        assert_close(norm.running_mean, mean)
        assert norm.num_batches_tracked == 1


def test_they_are_in_use_inside_the_block_alone(both, batch):
    (network, norms), (clean, _, _) = both, batch
    other = copy.deepcopy(network)
    for ours, theirs in zip(other[1].state_dict().values(), norms.auxiliary[0].state_dict().values(), strict=True):
        ours.copy_(theirs)
    before, fused = {name: t.clone() for name, t in network.state_dict().items()}, fuse(network)
    with eval_mode(network), eval_mode(other):
        plain = network(clean)
        for model in (network, norms, fused):  # a fused form, made before, follows
            assert_close(model(clean), plain)
            with norms.in_use():
                assert_close(model(clean), other(clean))
                assert not torch.allclose(model(clean), plain)
            assert_close(model(clean), plain)
    with pytest.raises(KeyboardInterrupt), norms.in_use():
        raise KeyboardInterrupt
    with batch_statistics(network), batch_statistics(other), norms.in_use():
        assert_close(network(clean), other(clean))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_network_without_batch_norms(image_set, make_run):
    with pytest.raises(ArgumentError, match="auxiliary_norms: expected False for a network without batch norms, got"):
        AuxiliaryNorms(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(ArgumentError, match=r"auxiliary_norms: .* True; without them, adversarial training"):
        make_run(image_set(8), network, architecture="custom", auxiliary_norms=True)


SETTINGS = {
    **{"architecture": "custom", "injection": "none", "batch_size": 16, "auxiliary_norms": True, "momentum": 0.0},
    **{"weight_decay": 0.0, "attack_steps": 1, "attack": "pgd"},
}


def test_a_step_written_out(image_set, make_run):
    """The attack in eval mode with the auxiliary norms, then one step on both images, each with its own norms."""
    data, network = image_set(16), make_network()
    run = make_run(data, network, **SETTINGS)
    for seed, norm in enumerate((run.model[1], run.auxiliary.auxiliary[0])):
        randomised(norm, seed)
    literal = copy.deepcopy(run.auxiliary)
    batch = next(run.plan.batches(data, run.share, 0))
    (part,) = batch.parts(Share(), run.config.seed)
    take_step(run, batch)
    with literal.in_use():
        (part_again,) = batch.parts(Share(), run.config.seed)
        adversarial = run.examples.make(literal.model, part_again)
    main, auxiliary = literal.model[1], literal.auxiliary[0]
    clean_logits = literal_logits(literal.model, main, part.clean)
    attacked_logits = literal_logits(literal.model, auxiliary, adversarial)
    loss = sum(nn.functional.cross_entropy(logits, part.labels) for logits in (clean_logits, attacked_logits)) / 2
    parameters = list(literal.parameters())
    expected = [p - 0.1 * g for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True)]
    for found, value in zip(run.auxiliary.parameters(), expected, strict=True):
        assert_close(found, value, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(run.model[1].weight, run.auxiliary.auxiliary[0].weight)


def test_weight_perturbation_meets_both_sets(image_set, make_run):
    """Without a step of the optimiser, the moved weights have been used with the norms of each kind of image."""
    data, seen = image_set(16), []
    run = make_run(data, make_network(), **SETTINGS, weight_perturbation=0.01, lr=0.0)
    randomised(run.auxiliary.auxiliary[0], 1)
    main = run.model[1].weight
    run.model[1].register_forward_pre_hook(lambda norm, _: seen.append(norm.weight is main))
    take_step(run, next(run.plan.batches(data, run.share, 0)))
    assert seen == [True, False, True, False]  # the ascent and the descent, each on clean and on attacked images


def test_an_attack_that_returns_the_clean_images(tmp_path):
    """They are adversarial images all the same, and pass through the auxiliary norms."""
    network, seen = make_own(), []
    main = network[1].weight
    network[1].register_forward_pre_hook(lambda norm, _: seen.append(norm.weight is main) if norm.training else None)
    config = TrainingConfig(
        architecture="custom", injection="none", auxiliary_norms=True, attack="custom", epochs=1, batch_size=16
    )
    train(config, tiny_set(16, 0), tiny_set(8, 1), tmp_path, network=network, attack=lambda *batch: batch[1])
    assert sorted(seen) == [False, True]


def make_own():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = nn.Conv2d(3, 5, 3, stride=4), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 64, 3)
        return nn.Sequential(*layers)


@pytest.mark.slow
def test_checkpoints_are_those_of_the_plain_network(tmp_path):
    """A ResNet-20 with the main norms; the auxiliary ones are in the saved state."""
    config = TrainingConfig(
        **{"recipe": "advprop", "injection": "none", "eps": 1 / 255, "attack_steps": 1, "relative_step_size": 1.0},
        **{"auxiliary_norms": True, "epochs": 1, "batch_size": 16, "average": 0.5, "validation_attack_images": 8},
    )
    train(config, tiny_set(32, 0), tiny_set(8, 1), tmp_path)
    plain, (state,) = build("resnet20", num_classes=3), (tmp_path / "state").iterdir()
    loaded = load(tmp_path / "last.safetensors")
    assert loaded.state_dict().keys() == plain.state_dict().keys()
    average = read_tensors(state / "average.safetensors")[0]
    assert torch.equal(loaded.bn1.running_mean, average["module.bn1.running_mean"])
    weights, auxiliary = (read_tensors(state / f"{name}.safetensors")[0] for name in ("weights", "auxiliary"))
    assert weights.keys() == plain.state_dict().keys()
    assert len([name for name in auxiliary if name.endswith("running_mean")]) == 21
    assert not torch.equal(weights["bn1.running_mean"], auxiliary["0.running_mean"])
