"""Context managers that run a model in eval mode and restore the mode of every submodule afterwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage] - base class of all batch norms

Classifier = Callable[[Tensor], Tensor]
"""Any callable from images (N, C, H, W) in [0, 1] to logits (N, K)."""


@contextmanager
def eval_mode(model: object) -> Iterator[None]:
    """Run `model` in eval mode inside the block and restore each submodule's mode afterwards.

    Objects other than `torch.nn.Module` have no mode and are left alone.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    # Setting the mode takes as long as a small forward pass, so it is skipped if all submodules are in eval mode.
    # A user's own `train` method may do more than set the mode, so it is always called.
    if any(training or type(module).train is not nn.Module.train for module, training in modes):
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            if module.training != training:
                module.training = training


@contextmanager
def batch_statistics(model: Classifier) -> Iterator[None]:
    """Run `model` in eval mode inside the block, except that batch norms use batch statistics.

    The running statistics of the batch norms are not updated.
    """
    with eval_mode(model):
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)] if isinstance(model, nn.Module) else []
        tracked = [norm.track_running_stats for norm in norms]
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        try:
            yield
        finally:
            for norm, tracks in zip(norms, tracked, strict=True):
                norm.track_running_stats = tracks
