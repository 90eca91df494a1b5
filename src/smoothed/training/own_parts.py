"""Networks of the user's own: checks before the first step."""

import torch
from torch import nn

from smoothed.data.images import Images
from smoothed.errors import ArgumentError
from smoothed.injection import noiseless
from smoothed.models.adapt import check_not_probabilities, float_dtype
from smoothed.utils.checks import check_logits, explaining_channel_errors
from smoothed.utils.modes import eval_mode

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
