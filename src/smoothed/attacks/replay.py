"""Rewinding of a random model to an earlier state of its random numbers, so that the same draws can be repeated."""

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from smoothed.utils.modes import Classifier


@runtime_checkable
class Replayable(Protocol):
    """An object that draws random numbers and can return to an earlier state."""

    def snapshot(self) -> Callable[[], None]:
        """Return a function that takes the object back to its present state."""
        ...


def snapshot(model: Classifier) -> Callable[[], None]:
    """Return a function that takes all known randomness of `model` back to its present state.

    Known are torch's default generators and the attributes of the model's modules that are generators or `Replayable`,
    such as the noise sources of this package. A model that draws random numbers from elsewhere does not repeat its
    draws; callers notice this by comparing outputs.
    """
    restorers = [_default_generators(), *(_restorer(value) for value in _random_sources(model))]

    def restore() -> None:
        for restore_one in restorers:
            restore_one()

    return restore


def _random_sources(model: Classifier) -> Iterator[torch.Generator | Replayable]:
    modules = model.modules() if isinstance(model, nn.Module) else ()
    seen: set[int] = set()
    for module in modules:
        for value in (module, *vars(module).values()):
            if isinstance(value, torch.Generator | Replayable) and id(value) not in seen:
                seen.add(id(value))
                yield value


def _restorer(value: torch.Generator | Replayable) -> Callable[[], None]:
    if isinstance(value, Replayable):  # some generators are replayable, too
        return value.snapshot()
    state = value.get_state()
    return lambda: value.set_state(state) and None


def _default_generators() -> Callable[[], None]:
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def restore() -> None:
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)

    return restore
