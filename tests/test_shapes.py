"""The check of shapes that runs in all tests finds wrong shapes, in the package as well."""

from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from shapes import check_shapes
from smoothed import votes
from smoothed.attacks.losses import cross_entropy


@check_shapes
def product(left: Float[Tensor, "n m"], right: Float[Tensor, "m k"]) -> Float[Tensor, "n k"]:
    return left @ right if len(left) < 9 else left


@check_shapes
@dataclass
class Pair:
    logits: Float[Tensor, "n k"]

    @classmethod
    @check_shapes
    def of(cls, logits: Float[Tensor, "n k"]) -> "Pair":
        return cls(logits)


def test_right_shapes_pass():
    assert product(torch.eye(2), torch.ones(2, 3)).shape == (2, 3)
    assert Pair.of(torch.ones(2, 3)).logits.shape == (2, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: product(torch.eye(2), torch.ones(2)),
        lambda: product(torch.eye(2), torch.ones(3, 2)),  # m is 2 and 3
        lambda: product(torch.eye(2), right=torch.ones(2, 2).long()),
        lambda: product(torch.eye(9), torch.ones(9, 2)),  # the result
        lambda: Pair(torch.ones(3)),
        lambda: Pair.of(torch.ones(3)),
        lambda: votes.soft(torch.zeros(3)),
        lambda: cross_entropy(torch.ones(4), torch.zeros(4, dtype=torch.int64)),
        lambda: cross_entropy(torch.ones(3, 4), torch.zeros(2, dtype=torch.int64)),
    ],
)
def test_wrong_shapes_are_errors(call):
    with pytest.raises(TypeError, match=r"is not|gave"):
        call()


def test_what_has_no_shapes_stays_as_it_is():
    def plain(x: int) -> int:
        return x

    assert check_shapes(plain) is plain
