"""Take a random model back to where its randomness was, so that the same draws can be met again."""

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from smoothed.utils.modes import Classifier


@runtime_checkable
class Replayable(Protocol):
    """Something that draws, and can go back."""

    def remember(self) -> Callable[[], None]:
        """A function that takes it back to where it is now."""
        ...


def remember(model: Classifier) -> Callable[[], None]:
    """A function that takes everything that `model` is known to draw from back to where it is now.

    Known are torch's default generators, and what the model's modules hold: generators, and anything `Replayable`, such
    as the sources of this package. A model that draws from elsewhere does not replay, which its outputs show.
    """
    back = [_default_generators(), *(_part(value) for value in _values(model))]

    def restore() -> None:
        for go_back in back:
            go_back()

    return restore


def _values(model: Classifier) -> Iterator[torch.Generator | Replayable]:
    modules = model.modules() if isinstance(model, nn.Module) else ()
    seen: set[int] = set()
    for module in modules:
        for value in (module, *vars(module).values()):
            if isinstance(value, torch.Generator | Replayable) and id(value) not in seen:
                seen.add(id(value))
                yield value


def _part(value: torch.Generator | Replayable) -> Callable[[], None]:
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state) and None
    return value.remember()


def _default_generators() -> Callable[[], None]:
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def restore() -> None:
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)

    return restore
