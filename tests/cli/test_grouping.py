"""Groups of options become the options of a command."""

import inspect
from contextlib import contextmanager
from dataclasses import dataclass

from smoothed.cli.grouping import expanded


@dataclass(frozen=True)
class Fruit:
    apples: int
    pears: str = "two"


@dataclass(frozen=True)
class Shared:
    loud: bool = False


def test_a_group_becomes_its_fields_and_is_given_as_an_object():
    got, prepared = [], []

    def eat(fruit: Fruit, spoon: bool = True) -> None:
        """Eat."""
        got.append((fruit, spoon, list(prepared)))

    @contextmanager
    def prepare(shared):
        prepared.append(shared)
        yield
        prepared.remove(shared)

    command = expanded(eat, Shared, prepare)
    parameters = inspect.signature(command).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "apples": inspect.Parameter.empty,
        "pears": "two",
        "spoon": True,
        "loud": False,
    }
    assert [parameter.annotation for parameter in parameters.values()] == [int, str, bool, bool]
    assert (command.__name__, command.__doc__) == ("eat", "Eat.")
    command(apples=1, pears="none", spoon=False, loud=True)
    assert got == [(Fruit(1, "none"), False, [Shared(loud=True)])]
    assert prepared == []
