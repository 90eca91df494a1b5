"""What a recipe costs, by counting the passes of a real step through its first layer."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from smoothed.training.config import TrainingConfig
from smoothed.training.cost import forward_equivalents
from smoothed.training.examples.adaptive import WARMUP_EPOCHS
from smoothed.training.recipes import RECIPES
from smoothed.training.step import take_step

IMAGES = 4


class Counting(nn.Conv2d):
    """A convolution that counts the images that pass it forwards, backwards, and backwards to its weights."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.forwards = self.backwards = self.to_weights = 0

    def forward(self, inputs):
        self.forwards += len(inputs)
        # A tensor made from the weight on each pass: autograd asks for its gradient only where the weight's is wanted.
        weight = self.weight * 1
        outputs = functional.conv2d(inputs, weight, self.bias, padding=1)
        if outputs.requires_grad:
            outputs.register_hook(lambda _: self._count("backwards", len(inputs)))
        if weight.requires_grad:
            weight.register_hook(lambda _: self._count("to_weights", len(inputs)))
        return outputs

    def _count(self, name, images):
        setattr(self, name, getattr(self, name) + images)


def counted_network():
    """A small network with batch norm whose first layer counts; the others can be fused for attacks, that one can't."""
    layers = Counting(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(4 * 36, 4))


def measured(config, data, make_run):
    """Forward passes that an image costs in an epoch, with backward passes to inputs for 1 and to weights for 2."""
    network = counted_network()
    run = make_run(data, network, **config.to_json())
    step = (WARMUP_EPOCHS + 1) * run.plan.steps_per_epoch
    for batch in run.plan.batches(data, run.share, step):
        if batch.epoch > WARMUP_EPOCHS + 1:
            break
        take_step(run, batch)
    layer = network[0]
    assert layer.to_weights <= layer.backwards <= layer.forwards
    return (layer.forwards + layer.backwards + layer.to_weights) / IMAGES


def small(recipe, **settings):
    """The recipe's configuration with a cheap attack, at a point of the run where radius and steps have grown."""
    whole = recipe.config()
    capped = {
        "attack_steps": min(whole.attack_steps, 3),
        "eot_samples": min(whole.eot_samples, 2),
        "loss_samples": min(whole.loss_samples, 2),
        "replays": min(whole.replays, 3),
    }
    fixed = {"architecture": "custom", "epochs": WARMUP_EPOCHS + 3, "batch_size": IMAGES, "precision": "float32"}
    return recipe.config(**{**capped, **fixed, **settings})


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_of_each_recipe_costs_what_is_said(name, image_set, make_run):
    config = small(RECIPES[name])
    assert measured(config, image_set(IMAGES), make_run) == forward_equivalents(config)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("at", {"adversarial_weight": 0.0}),
        ("at", {"adversarial_weight": 1.0}),
        ("at", {"attack": "none"}),
        ("at", {"loss_samples": 3, "weight_perturbation": 0.01}),
        ("at", {"accumulation": 2}),
        ("at", {"attack": "epgd-loss", "replays": 2}),
        ("at", {"attack": "epgd-accumulated"}),
        ("cni-w", {"attack": "pgd-accumulated"}),
        ("trades-6", {"beta": 0.0}),
        ("mart", {"beta": 0.0}),
        ("iaat", {"attack_steps": 1, "loss_samples": 2}),
        ("fgsm-rs", {"attack": "fgsm", "attack_steps": 3}),
        ("smoothadv", {"eot_samples": 9, "attack_steps": 1}),
        ("stability", {"beta": 0.0}),
        ("maxup", {"copies": 2, "adversarial_weight": 0.5}),
        ("maxup-crop", {"loss": "trades", "weight_perturbation": 0.01}),
        ("fgsm-pgi", {"beta": 0.0}),
        ("fgsm-pgi", {"loss": "adversarial"}),
        ("dynamic", {"attack_steps": 2, "injection": "vdo-w"}),
        ("voronoi", {"attack_steps": 2, "loss": "trades", "eot_samples": 3}),
        ("adv-bnn", {"eot_samples": 3, "attack_steps": 1}),
        ("anp", {"hidden_steps": 2, "hidden_layers": 1}),
        ("at", {"hidden_noise": 1.0, "weight_perturbation": 0.01}),
        ("l2l", {"hidden_noise": 1.0}),
        ("l2l", {"loss": "trades", "accumulation": 2}),
        ("l2l-2", {"loss": "trades", "beta": 0.0}),
        ("csat", {"beta": 0.0}),
        ("csat", {"beta": 0.0, "lipschitz_weight": 0.0}),
        ("csat", {"adversarial_weight": 0.0, "loss_samples": 2}),
        ("at", {"nfgsm_warmup": 1.0}),
        ("smoothadv-l2", {"loss": "bernoulli", "adversarial_weight": 0.5}),
    ],
)
def test_settings_that_change_the_cost(name, settings, image_set, make_run):
    config = small(RECIPES[name], **settings)
    assert measured(config, image_set(IMAGES), make_run) == forward_equivalents(config)


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        # By hand, from the recipes' numbers: an ascent is 2, a descent 3.
        ({"attack": "none", "adversarial_weight": 0.0}, 3),
        ({"attack": "pgd", "attack_steps": 7}, 7 * 2 + 2 * 3),
        ({"attack": "pgd", "attack_steps": 56}, 56 * 2 + 2 * 3),
        ({"attack": "epgd", "attack_steps": 7, "eot_samples": 8}, 7 * 8 * 2 + 2 * 3),
        ({"attack": "kl", "loss": "trades", "attack_steps": 10}, 1 + 10 * 2 + 2 * 3),
        ({"attack": "pgd", "attack_steps": 7, "nfgsm_warmup": 0.75}, (3 * 2 + 14) // 4 + 2 * 3),
        ({"attack": "free", "replays": 8, "adversarial_weight": 1.0}, 8 * 3),
    ],
)
def test_at_the_recipes_own_size(settings, passes):
    assert forward_equivalents(TrainingConfig(**settings)) == passes


def test_the_counter_counts(generator):
    """A forward pass, one backward pass to the inputs alone, and one to the weights."""
    layer, inputs = Counting(3, 4, 3), torch.rand(5, 3, 8, 8, generator=generator, requires_grad=True)
    torch.autograd.grad(layer(inputs).sum(), inputs)
    assert (layer.forwards, layer.backwards, layer.to_weights) == (5, 5, 0)
    layer(inputs).sum().backward()
    assert (layer.forwards, layer.backwards, layer.to_weights) == (10, 10, 5)
    with torch.no_grad():
        layer(inputs)
    assert (layer.forwards, layer.backwards, layer.to_weights) == (15, 10, 5)
