"""The access of a black-box attacker: a model's answers, counted and limited per image."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from smoothed.errors import ArgumentError
from smoothed.utils.checks import (
    check_callable,
    check_choice,
    check_inputs,
    check_logits,
    check_positive,
    explaining_channel_errors,
)
from smoothed.utils.modes import Classifier, eval_mode

Sees = Literal["logits", "shares", "labels"]
SEES = ("logits", "shares", "labels")

# Lower bound for a share, so that its logarithm is finite in float32.
SMALLEST_SHARE = 1e-30


class Queries:
    """A model of which only the answers to queries can be observed.

    Pass it to a black-box attack in place of the model, and read the number of queries afterwards:

        queries = Queries(smoothed.log_probs, sees="shares", max_queries=1000)
        adversarial = attacks.square(queries, inputs, labels, eps=8 / 255)
        queries.spent  # number of queries per image, (N,)

    Each answer of a random model is a fresh draw or a fresh vote. The model, or the module that owns it if it is a
    method, answers in eval mode, and its modes are restored after each answer.

    Args:
        model: any callable from images to logits (N, K), such as the `log_probs` of a `Smoothed`.
        sees: output that the attacker observes: `logits`; `shares` of probability or votes, returned as logarithms so
            that attacks can treat them like logits; or `labels` (1 for the predicted class, 0 for the others).
        max_queries: maximum number of queries per image; None for no limit.
        chunk_size: maximum number of images per forward pass, which bounds the memory.

    Attributes:
        spent: number of queries per attacked image since `begin`, (N,) int64.

    Raises:
        ArgumentError: the model cannot be called, `sees` is unknown, or `max_queries` or `chunk_size` is below 1.
    """

    def __init__(
        self, model: Classifier, *, sees: Sees = "logits", max_queries: int | None = None, chunk_size: int = 256
    ) -> None:
        check_callable(model, "model")
        check_choice(sees, SEES, "sees")
        self.model = model
        self.sees: Sees = sees
        self.max_queries = None if max_queries is None else check_positive(max_queries, "max_queries")
        self.chunk_size = check_positive(chunk_size, "chunk_size")
        self.spent: Int[Tensor, " n"] = torch.zeros(0, dtype=torch.int64)

    def begin(self, inputs: Tensor) -> None:
        """Reset the counts, for an attack on `inputs`, (N, C, H, W)."""
        self.spent = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)

    def affords(self, rows: Int[Tensor, " m"], count: int = 1) -> Bool[Tensor, " m"]:
        """Return whether `count` more queries are allowed for each of the attacked images `rows`, (M,) bool."""
        if self.max_queries is None:
            return torch.ones_like(rows, dtype=torch.bool)
        return self.spent[rows] + count <= self.max_queries

    @torch.no_grad()
    def ask(
        self, images: Float[Tensor, "m c h w"], rows: Int[Tensor, " m"], eot_samples: int = 1
    ) -> Float[Tensor, "m k"]:
        """Return the answers to `images`, each of which is a version of an attacked image.

        Args:
            images: images in [0, 1], (M, C, H, W). They are processed in the fewest possible chunks, of nearly equal
                size.
            rows: indices of the attacked images to which `images` belong, (M,); repetitions are allowed.
            eot_samples: number of answers averaged for each image; each counts as a query. The answers come from
                separate forward passes, since noise may be shared within a pass. The average is of what `sees` names
                (of shares before the logarithm), and is unbiased except for that logarithm.

        Returns:
            Answers, (M, K), in at least float32.

        Raises:
            ArgumentError: more queries than an image has left (none of them is then made), or the model does not return
                finite logits.
        """
        spent = self.spent.index_add(0, rows, torch.full_like(rows, eot_samples))
        if self.max_queries is not None and bool((spent > self.max_queries).any()):
            raise ArgumentError("max_queries", f"at most {self.max_queries} queries per image", int(spent.max()))
        self.spent = spent
        chunks = images.tensor_split(-(-len(images) // self.chunk_size))
        with eval_mode(_owner(self.model)):
            answers = torch.cat([self._mean_answer(chunk, eot_samples) for chunk in chunks])
        return answers.clamp_min(SMALLEST_SHARE).log() if self.sees == "shares" else answers

    def _mean_answer(self, images: Tensor, eot_samples: int) -> Tensor:
        total = self._answer(images)
        for _ in range(eot_samples - 1):
            total = total + self._answer(images)
        return total / eot_samples

    def _answer(self, images: Tensor) -> Tensor:
        with explaining_channel_errors(images):
            logits = check_logits(self.model(images), len(images))
        logits = logits if logits.dtype == torch.float64 else logits.float()
        answer = logits.softmax(1) if self.sees == "shares" else logits
        if not bool(answer.isfinite().all()):
            raise ArgumentError("model", "finite logits", "NaN or infinity")
        return functional.one_hot(answer.argmax(1), answer.shape[1]).to(answer) if self.sees == "labels" else answer


def as_queries(model: Classifier | Queries, inputs: Tensor) -> Queries:
    """Return `model` if it is `Queries`, else unlimited queries of its logits; the counts are reset for `inputs`."""
    queries = model if isinstance(model, Queries) else Queries(model)
    queries.begin(check_inputs(inputs))
    return queries


def require_scores(queries: Queries, attack: str) -> None:
    """Raise `ArgumentError` if only labels are observed, for an attack that compares scores."""
    if queries.sees == "labels":
        raise ArgumentError("sees", f"logits or shares, since {attack} compares scores", "labels")


def _owner(model: Classifier) -> Classifier:
    """Return the module whose mode matters: `model`, or the owner of a method such as `log_probs` of a `Smoothed`."""
    instance = getattr(model, "__self__", None)
    return instance if isinstance(instance, nn.Module) else model
