"""Networks and attacks of the user's own: checks before the first step, and calls in the form that training uses."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from smoothed.attacks import Attack
from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.injection import noiseless
from smoothed.models.adapt import check_not_probabilities, float_dtype
from smoothed.rng.rows import Randomness
from smoothed.utils.checks import check_logits, explaining_channel_errors
from smoothed.utils.modes import Classifier, eval_mode
from smoothed.utils.names import name_of

# Number of images that show what a network returns.
PROBED_IMAGES = 16


@torch.no_grad()
def check_own_network(network: nn.Module, images: Images) -> None:
    """Raise an error unless a network maps images to as many logits as the data has classes, or more.

    Args:
        network: network on the device of the images; it runs in eval mode without noise and returns to its mode.
        images: a few images of the training set.

    Raises:
        ArgumentError: the weights are not float32, or the network fails on the images, returns something else than
            logits, or has fewer outputs than the data has classes.
    """
    dtype = float_dtype(network)
    if dtype not in (None, torch.float32):
        hint = 'call network.float(); precision="bf16" trains in mixed precision'
        raise ArgumentError("network", "weights in float32", dtype, hint)
    inputs, _ = next(images.batches(len(images)))
    with eval_mode(network), noiseless(network), torch.random.fork_rng(devices=[]), explaining_channel_errors(inputs):
        try:
            outputs = network(inputs)
        except (RuntimeError, ValueError, IndexError) as error:
            if "channels" in str(error) or isinstance(error, ArgumentError):
                raise
            expected = f"a network for images of shape {tuple(inputs.shape[1:])}"
            got = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            raise ArgumentError("network", expected, got) from error
    logits = check_logits(outputs, len(inputs), "network")
    check_not_probabilities(logits, "network")
    if logits.shape[1] < len(images.classes):
        expected = f"at least {len(images.classes)} outputs, one for each class of {images.name}"
        raise ArgumentError("network", expected, logits.shape[1], "give the network a last layer of that size")


def own_attack(attack: Callable[..., Tensor]) -> Attack:
    """Return an attack of the user's own as training calls it.

    Args:
        attack: function of (model, inputs, labels) and, if it has a parameter of that name or a fourth positional one,
            of `generator`.

    Returns:
        The same as a function of (model, inputs, labels, generator).

    Raises:
        ArgumentError: `attack` cannot be called with three or four arguments; in a call, it returns something else than
            images of the shape of the inputs.
    """
    pass_generator = _way_to_pass_generator(attack)
    name = name_of(attack)

    def checked(model: Classifier, inputs: Tensor, labels: Tensor, generator: Randomness = None) -> Tensor:
        adversarial: Any = pass_generator(attack, (model, inputs, labels), generator)
        if not isinstance(adversarial, Tensor) or adversarial.shape != inputs.shape:
            is_tensor = isinstance(adversarial, Tensor)
            got = (
                f"shape {tuple(adversarial.shape)}" if is_tensor else f"an object of type {type(adversarial).__name__}"
            )
            raise ArgumentError("attack", f"images of shape {tuple(inputs.shape)} from {name}", got)
        return adversarial.detach()

    return checked


Call = Callable[[Callable[..., Tensor], tuple[Any, ...], Randomness], Tensor]


def _way_to_pass_generator(attack: Callable[..., Tensor]) -> Call:
    if isinstance(attack, type) or not callable(attack):
        raise ArgumentError("attack", "a function (model, inputs, labels, generator) -> images", repr(attack))
    calls: list[tuple[Call, tuple[object, ...], dict[str, object]]] = [
        (lambda f, three, generator: f(*three, generator=generator), (0, 0, 0), {"generator": 0}),
        (lambda f, three, generator: f(*three, generator), (0, 0, 0, 0), {}),
        (lambda f, three, generator: f(*three), (0, 0, 0), {}),  # noqa: ARG005
    ]
    try:
        signature = inspect.signature(attack)
    except (TypeError, ValueError):  # some functions written in C have none
        return calls[0][0]
    for call, positional, by_name in calls:
        try:
            signature.bind(*positional, **by_name)
        except TypeError:
            continue
        return call
    expected = "a function (model, inputs, labels, generator) -> images"
    raise ArgumentError("attack", expected, f"{name_of(attack)}{signature}")
