"""Names of callables."""

from functools import partial

import pytest

from smoothed.errors import ArgumentError
from smoothed.utils.names import name_of


class Attack:
    def __call__(self):
        pass


def attack():
    pass


@pytest.mark.parametrize(
    ("obj", "name"),
    [
        ("pgd", "pgd"),
        (attack, "attack"),
        (lambda: None, "<lambda>"),
        (Attack, "Attack"),
        (Attack(), "Attack"),
        (Attack().__call__, "__call__"),
        (partial(attack), "attack"),
        (partial(partial(Attack()), 1), "Attack"),
        (ArgumentError, "ArgumentError"),
        (3, "int"),
    ],
)
def test_names(obj, name):
    assert name_of(obj) == name
