"""Where a run starts: a new network, a checkpoint, or one's own network."""

import dataclasses

import pytest
import torch
from torch import nn

from smoothed.checkpoint import describe, load, read_header, read_tensors, save
from smoothed.errors import ArgumentError, CheckpointError
from smoothed.injection import PNI, frozen, inject, inject_preset, noise_layers, noiseless
from smoothed.models import CIFAR10_STD, CIFAR100_MEAN, CIFAR100_STD, build
from smoothed.training.config import TrainingConfig
from smoothed.training.initial import initial_network

CLASSES = ("a", "b", "c")


@pytest.fixture
def data(image_set):
    """A set of images of three classes."""
    return image_set(12, classes=3)


def checkpoint(path, injection, classes=CLASSES):
    with torch.random.fork_rng():
        model = build("resnet20", num_classes=len(classes))
    changes = inject_preset(model, injection).to_json()
    for layer in noise_layers(model):
        for parameter in layer.parameters():
            torch.nn.init.constant_(parameter, 0.125)
    return str(save(path, model, describe("resnet20", model, changes, classes, training={"seconds": 1})))


def places(start):
    return [(change["layer"], change["target"]) for change in start.injection]


# A new network.


def test_a_new_network_follows_its_seed_alone(data):
    state = torch.random.get_rng_state()
    first, second, other = (initial_network(TrainingConfig(seed=seed), data).model for seed in (1, 1, 2))
    assert torch.equal(first.linear.bias, second.linear.bias)
    assert not torch.equal(first.linear.bias, other.linear.bias)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_new_network_has_the_datas_classes_and_statistics(data):
    start = initial_network(TrainingConfig(data="cifar100", injection="none"), data)
    assert start.model.linear.out_features == 3
    assert start.model.normalize.mean.flatten().tolist() == pytest.approx(CIFAR100_MEAN)
    assert start.std == CIFAR100_STD
    assert (start.injection, start.parent) == ([], {})


def test_statistics_of_images_that_have_none(data):
    start = initial_network(TrainingConfig(data="imagefolder:somewhere", injection="none"), data)
    pixels = data.images.double().movedim(1, 0).flatten(1) / 255
    assert start.std == pytest.approx(pixels.std(1, correction=0).tolist())
    assert start.model.normalize.mean.flatten().tolist() == pytest.approx(pixels.mean(1).tolist())
    assert start.model.normalize.std.flatten().tolist() == pytest.approx(list(start.std))


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_new_network_has_its_noise_at_the_strength_asked_for(data, strength):
    config = TrainingConfig(injection="pni-w-layer", injection_strength=strength)
    start = initial_network(config, data)
    assert len(start.injection) == 22
    alphas = [layer.alpha.item() for layer in noise_layers(start.model)]
    assert alphas == [0.25 * strength] * 22


# A checkpoint.


def test_fine_tuning_keeps_weights_and_learned_noise(tmp_path, data):
    path = checkpoint(tmp_path / "noisy.safetensors", "cni-w")
    start = initial_network(TrainingConfig(start=path), data)
    saved, header = read_tensors(path)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in start.model.state_dict().items())
    assert start.injection == header["injection"]
    assert len(start.injection) == 22
    assert start.parent == {"seconds": 1}
    assert start.std == CIFAR10_STD


def test_a_network_without_noise_gets_some(tmp_path, data):
    path = checkpoint(tmp_path / "plain.safetensors", "none")
    start = initial_network(TrainingConfig(start=path, injection="pni-w-layer"), data)
    saved, _ = read_tensors(path)
    assert torch.equal(start.model.conv1.parametrizations.weight.original, saved["conv1.weight"])
    assert len(start.injection) == len(noise_layers(start.model)) == 22
    assert {layer.alpha.item() for layer in noise_layers(start.model)} == {0.25}


@pytest.mark.parametrize(("injection", "added"), [("cni-w+pni-a", 22), ("cni-w+input", 1)])
def test_noise_that_is_missing_is_put_beside_what_there_is(tmp_path, data, injection, added):
    """What was learned stays; the new noise starts as it does anywhere; a checkpoint of the result can be loaded."""
    path = checkpoint(tmp_path / "noisy.safetensors", "cni-w")
    start = initial_network(TrainingConfig(start=path, injection=injection), data)
    saved, header = read_tensors(path)
    state = start.model.state_dict()
    assert all(torch.equal(state[name], saved[name]) for name in saved)
    new = {name: tensor for name, tensor in state.items() if name not in saved}
    assert start.injection[:22] == header["injection"]
    assert [target for _, target in places(start)[22:]] == ["activation"] * added
    assert [tensor.item() for tensor in new.values()] == [{22: 0.25, 1: pytest.approx(0.24)}[added]] * added
    header = describe("resnet20", start.model, start.injection, CLASSES)
    again = load(save(tmp_path / "both.safetensors", start.model, header))
    assert again.state_dict().keys() == state.keys()
    assert read_header(tmp_path / "both.safetensors")["injection"] == start.injection


@pytest.mark.parametrize("injection", ["cni-w", "pni-w-layer"])
def test_fine_tuning_can_start_from_weaker_noise(tmp_path, data, injection):
    """Scaling by a half halves the noise of a draw, exactly: the law is linear in its normals."""
    path = checkpoint(tmp_path / "noisy.safetensors", injection)
    noises = []
    for strength in (1.0, 0.5):
        config = TrainingConfig(start=path, injection=injection, injection_strength=strength)
        model = initial_network(config, data).model
        with frozen(model):
            layer = model.layer1[0].conv1
            noises.append((layer.weight - layer.parametrizations.weight.original).detach())
    assert noises[0].std() > 0.01
    assert torch.allclose(noises[1], noises[0] / 2, atol=1e-6)


WAYS_OUT = "Pass --injection keep to keep it, or --injection none to remove it$"


@pytest.mark.parametrize(
    ("there", "recipe", "asked", "message"),
    [
        ("cni-w", "cni-w", "pni-w", "already has CNI noise; --injection pni-w expects other noise. "),
        ("pni-w-layer", "cni-w", "pni-w", "has PNI noise; --injection pni-w expects other noise. "),
        ("cni-w", "pni-w", "pni-w", "CNI noise; recipe pni-w expects only pni-w. "),
        ("cni-w", "at", "none", "CNI noise; recipe at expects none. "),
    ],
)
def test_a_checkpoint_with_another_noise(tmp_path, data, there, recipe, asked, message):
    path = checkpoint(tmp_path / "noisy.safetensors", there)
    with pytest.raises(CheckpointError, match=message + WAYS_OUT) as error:
        initial_network(TrainingConfig(recipe=recipe, start=path, injection=asked), data)
    assert str(error.value).startswith(f"{path} already has ")


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("recipe", ["nfgsm", "pni-w"])
def test_noise_of_a_checkpoint_can_be_kept(tmp_path, data, recipe, strength):
    path = checkpoint(tmp_path / "noisy.safetensors", "pni-w-layer")
    config = TrainingConfig(recipe=recipe, start=path, injection="keep", injection_strength=strength)
    start = initial_network(config, data)
    assert start.injection == read_header(path)["injection"]
    assert {layer.alpha.item() for layer in noise_layers(start.model)} == {0.125 * strength}
    assert start.notes == ()


@pytest.mark.parametrize("there", ["cni-w", "cni-w+pni-a", "none"])
def test_noise_of_a_checkpoint_can_be_removed(tmp_path, data, images, there):
    """What is left is the mean network."""
    path = checkpoint(tmp_path / "noisy.safetensors", there)
    start = initial_network(TrainingConfig(start=path, injection="remove"), data)
    assert (start.injection, noise_layers(start.model)) == ([], [])
    assert len(start.notes) == (there != "none")
    mean = load(path)
    with noiseless(mean):
        assert torch.equal(start.model.eval()(images), mean(images))


def test_a_checkpoint_that_does_not_fit(tmp_path, data):
    path = checkpoint(tmp_path / "noisy.safetensors", "cni-w")
    message = r"expected architecture resnet32, got resnet20 \(missing: layer1\.3.*; pass --architecture resnet20 to"
    with pytest.raises(CheckpointError, match=message):
        initial_network(TrainingConfig(start=path, architecture="resnet32"), data)
    with pytest.raises(CheckpointError, match="expected a checkpoint file or a bundled name"):
        initial_network(TrainingConfig(start=str(tmp_path / "nowhere.safetensors")), data)


# Other classes.


@pytest.mark.parametrize("injection", ["none", "cni-w+pni-a"])
@pytest.mark.parametrize(("count", "new_head"), [(4, False), (3, True)])
def test_another_number_of_classes_replaces_the_last_layer_alone(tmp_path, image_set, injection, count, new_head):
    path = checkpoint(tmp_path / "a.safetensors", injection)
    data = image_set(12, classes=count)
    start = initial_network(TrainingConfig(start=path, injection=injection, new_head=new_head, seed=5), data)
    saved, header = read_tensors(path)
    state = start.model.state_dict()
    new = initial_network(TrainingConfig(injection=injection, seed=5), data).model.state_dict()
    for name, tensor in state.items():
        source = new if name.startswith("linear.") else saved
        assert torch.equal(tensor, source[name]), name
    assert sorted(start.injection, key=str) == sorted(header["injection"], key=str)
    assert start.classes == tuple("abcd"[:count])
    (note,) = start.notes
    assert note.startswith(f"the last layer of {path} (3 classes) is replaced by a new one for {count} (a, b, c")
    described = describe("resnet20", start.model, start.injection, start.classes)
    assert load(save(tmp_path / "b.safetensors", start.model, described)).linear.out_features == count


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (
            ("a", "b", "dog"),
            r"expected the classes of random \(a, b, c\), got 3 other classes \(a, b, dog\); pass --new-",
        ),
        (("c", "a", "b"), r"expected .* got the same classes in another order \(c, a, b\); pass --new-head to train"),
    ],
)
def test_as_many_classes_of_other_names_are_a_choice(tmp_path, data, theirs, message):
    path = checkpoint(tmp_path / "a.safetensors", "none", theirs)
    with pytest.raises(CheckpointError, match=message):
        initial_network(TrainingConfig(start=path, injection="none"), data)
    start = initial_network(TrainingConfig(start=path, injection="none", new_head=True), data)
    assert (start.classes, len(start.notes)) == (CLASSES, 1)


def test_unknown_names_are_taken_for_known_ones(tmp_path, data):
    saved = checkpoint(tmp_path / "a.safetensors", "none", ("x", "y", "z"))
    numbers = dataclasses.replace(data, classes=("0", "1", "2"), named_classes=False)
    start = initial_network(TrainingConfig(start=saved, injection="none"), numbers)
    assert start.classes == ("x", "y", "z")
    assert start.notes == (f"the classes of random have no names and are taken for those of {saved}: x, y, z",)
    saved = checkpoint(tmp_path / "b.safetensors", "none", ("0", "1", "2"))
    start = initial_network(TrainingConfig(start=saved, injection="none"), data)
    assert (start.classes, start.notes) == (CLASSES, ())


def test_new_noise_on_a_trained_network_is_said(tmp_path, data):
    path = checkpoint(tmp_path / "plain.safetensors", "none")
    (note,) = initial_network(TrainingConfig(start=path, injection="pni-w", injection_strength=0.5), data).notes
    assert note.startswith(f"noise of pni-w that {path} lacks is added at 0.5 of its published strength")


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_any_number_of_channels(data, channels, tmp_path):
    images = data.images[:, :1].expand(-1, channels, -1, -1)
    data = dataclasses.replace(data, images=images)
    start = initial_network(TrainingConfig(data="custom", injection="pni-w"), data)
    logits = start.model.eval()(images[:2].float() / 255)
    assert logits.shape == (2, len(data.classes))
    assert len(start.std) == channels
    path = tmp_path / "network.safetensors"
    save(path, start.model, describe("resnet20", start.model, start.injection, start.classes))
    again = initial_network(TrainingConfig(data="custom", injection="pni-w", start=str(path)), data)
    assert again.model.state_dict().keys() == start.model.state_dict().keys()


def test_a_checkpoint_is_fine_tuned_on_images_of_its_channels(data, tmp_path):
    path = checkpoint(tmp_path / "network.safetensors", "none")
    data = dataclasses.replace(data, images=data.images[:, :1])
    with pytest.raises(ArgumentError, match=r"data: expected images of 3 channels for .*, got 1 in rand"):
        initial_network(TrainingConfig(data="custom", start=path), data)


# One's own network.


def test_ones_own_network_gets_the_noise(data, network):
    weights = [parameter.detach().clone() for parameter in network.parameters()]
    start = initial_network(TrainingConfig(architecture="custom", injection="pni-w-layer"), data, network)
    assert start.model is network
    assert places(start) == [("0", "weight"), ("4", "weight"), ("7", "weight")]
    strengths = {id(parameter) for layer in noise_layers(network) for parameter in layer.parameters()}
    kept = [parameter for parameter in network.parameters() if id(parameter) not in strengths]
    assert {tuple(weight.shape) for weight in kept} == {tuple(weight.shape) for weight in weights}
    assert sum(weight.sum() for weight in kept).item() == pytest.approx(sum(w.sum() for w in weights).item(), rel=1e-5)
    assert start.std == CIFAR10_STD


@pytest.mark.parametrize(
    ("architecture", "own", "got"),
    [("resnet20", True, "resnet20 and a network"), ("custom", False, "custom and no network")],
)
def test_ones_own_network_and_the_name_custom_go_together(data, architecture, own, got):
    config = TrainingConfig(architecture=architecture, injection="none")
    message = f"network: expected a network if, and only if, the architecture is custom, got {got}"
    with pytest.raises(ArgumentError, match=message):
        initial_network(config, data, nn.Flatten() if own else None)


def test_ones_own_network_is_loaded_by_its_owner(data, network):
    config = TrainingConfig(architecture="custom", start="resnet20-cni-w")
    message = "start: expected none with a network of your own, got .*; load its weights yourself"
    with pytest.raises(ArgumentError, match=message):
        initial_network(config, data, network)


def test_noise_of_ones_own_network_is_a_choice(data, network):
    inject(network, weights=PNI(initial=0.125), layers=["4"])
    config = TrainingConfig(architecture="custom", injection="none", recipe="at")
    message = (
        'network already has PNI noise; recipe at expects none. Pass injection="keep" to keep it, or injection="none"'
    )
    with pytest.raises(CheckpointError, match=message):
        initial_network(config, data, network)
    start = initial_network(dataclasses.replace(config, injection="keep", injection_strength=0.5), data, network)
    assert places(start) == [("4", "weight")]
    assert [layer.alpha.item() for layer in noise_layers(network)] == [0.0625]
    added = initial_network(dataclasses.replace(config, injection="pni-w-layer"), data, network)
    assert sorted(places(added)) == [("0", "weight"), ("4", "weight"), ("7", "weight")]
    start = initial_network(dataclasses.replace(config, injection="remove"), data, network)
    assert (start.injection, noise_layers(network)) == ([], [])
