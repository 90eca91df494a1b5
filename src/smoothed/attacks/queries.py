"""What a black-box attacker sees: a model's answers, counted image by image and bounded."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from smoothed.checks import check_choice, check_logits, check_positive, naming_channels
from smoothed.errors import ArgumentError
from smoothed.modes import Classifier

Sees = Literal["logits", "shares", "labels"]
SEES = ("logits", "shares", "labels")


class Queries:
    """The answers of a model, for attacks that may only ask.

    Hand it to a black-box attack in the model's place, and read off afterwards what was asked:

        queries = Queries(smoothed.log_probs, sees="shares", max_queries=1000)
        adversarial = attacks.square(queries, inputs, labels, eps=8 / 255)
        queries.spent  # how many for each image, (N,)

    Each answer of a random model is a fresh draw, or a fresh vote.

    Args:
        model: any callable from images to logits (N, K); of a `Smoothed`, its `log_probs`.
        sees: the `logits`; the `shares` of probability or votes (as logarithms, so that attacks treat them alike); or
            the winning `labels` alone (1 for the class, 0 for the others).
        max_queries: for each image; None for no bound.
        chunk_size: images of one forward pass.
    """

    def __init__(
        self, model: Classifier, *, sees: Sees = "logits", max_queries: int | None = None, chunk_size: int = 256
    ) -> None:
        check_choice(sees, SEES, "sees")
        self.model = model
        self.sees: Sees = sees
        self.max_queries = None if max_queries is None else check_positive(max_queries, "max_queries")
        self.chunk_size = check_positive(chunk_size, "chunk_size")
        self.spent: Int[Tensor, " n"] = torch.zeros(0, dtype=torch.int64)

    def begin(self, inputs: Tensor) -> None:
        """Start counting anew, for an attack on `inputs` (N, C, H, W)."""
        self.spent = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)

    def affords(self, rows: Int[Tensor, " m"], count: int = 1) -> Bool[Tensor, " m"]:
        """Whether each of the attacked images `rows` may be asked about `count` more times."""
        if self.max_queries is None:
            return torch.ones_like(rows, dtype=torch.bool)
        return self.spent[rows] + count <= self.max_queries

    @torch.no_grad()
    def ask(self, images: Float[Tensor, "m c h w"], rows: Int[Tensor, " m"]) -> Float[Tensor, "m k"]:
        """The answers to `images`, in float32, each a version of the attacked image whose number is in `rows`.

        Raises:
            ArgumentError: more queries than an image has left, or a model that gives no logits.
        """
        self.spent.index_add_(0, rows, torch.ones_like(rows))
        if self.max_queries is not None and bool((self.spent > self.max_queries).any()):
            raise ArgumentError("max_queries", f"at most {self.max_queries} an image", int(self.spent.max()))
        return torch.cat([self._answer(chunk) for chunk in images.split(self.chunk_size)])

    def _answer(self, images: Tensor) -> Tensor:
        with naming_channels(images):
            logits = check_logits(self.model(images), len(images)).float()
        if self.sees == "labels":
            return functional.one_hot(logits.argmax(1), logits.shape[1]).float()
        return logits if self.sees == "logits" else logits.log_softmax(1)


def queries_of(model: Classifier | Queries, inputs: Tensor) -> Queries:
    """`model` as `Queries` that count from 0 for an attack on `inputs`: unbounded and seeing logits if it was none."""
    queries = model if isinstance(model, Queries) else Queries(model)
    queries.begin(inputs)
    return queries


def require_scores(queries: Queries, attack: str) -> None:
    """Raise `ArgumentError` where labels alone are seen, for an attack that compares scores."""
    if queries.sees == "labels":
        raise ArgumentError("sees", f"logits or shares with {attack}, which compares scores", "labels")
