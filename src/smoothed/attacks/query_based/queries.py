"""What a black-box attacker sees: a model's answers, counted image by image and bounded."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_choice, check_inputs, check_logits, check_positive, naming_channels
from smoothed.utils.modes import Classifier, evaluating

Sees = Literal["logits", "shares", "labels"]
SEES = ("logits", "shares", "labels")

# Keeps the logarithm of a share of 0 finite in float32.
SMALLEST_SHARE = 1e-30


class Queries:
    """The answers of a model, for attacks that may only ask.

    Hand it to a black-box attack in the model's place, and read off afterwards what was asked:

        queries = Queries(smoothed.log_probs, sees="shares", max_queries=1000)
        adversarial = attacks.square(queries, inputs, labels, eps=8 / 255)
        queries.spent  # how many for each image, (N,)

    Each answer of a random model is a fresh draw, or a fresh vote. A module, or the module of a method, answers in eval
    mode and has its own modes back after each answer.

    Args:
        model: any callable from images to logits (N, K); of a `Smoothed`, its `log_probs`.
        sees: the `logits`; the `shares` of probability or votes (as logarithms, so that attacks treat them alike); or
            the winning `labels` alone (1 for the class, 0 for the others).
        max_queries: for each image; None for no bound.
        chunk_size: images of one forward pass at most; memory grows with it.
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
    def ask(
        self, images: Float[Tensor, "m c h w"], rows: Int[Tensor, " m"], num_samples: int = 1
    ) -> Float[Tensor, "m k"]:
        """The answers to `images`, each a version of the attacked image whose number is in `rows`.

        Args:
            images: in [0, 1], (M, C, H, W). They are cut into the fewest chunks, of about equal size.
            rows: numbers of attacked images, (M,); one may be there more than once.
            num_samples: answers averaged for each, all of which count, each from a pass of its own: noise that a batch
                shares would be the same in all answers of one pass. Averaged are logits, shares (before their
                logarithm) or labels, whichever is seen; the mean is unbiased but for the logarithm.

        Returns:
            (M, K), in float32 at least.

        Raises:
            ArgumentError: more queries than an image has left (none is then asked), or a model that gives no finite
                logits.
        """
        spent = self.spent.index_add(0, rows, torch.full_like(rows, num_samples))
        if self.max_queries is not None and bool((spent > self.max_queries).any()):
            raise ArgumentError("max_queries", f"at most {self.max_queries} an image", int(spent.max()))
        self.spent = spent
        chunks = images.tensor_split(-(-len(images) // self.chunk_size))
        with evaluating(_module_of(self.model)):
            seen = torch.cat([self._mean(chunk, num_samples) for chunk in chunks])
        return seen.clamp_min(SMALLEST_SHARE).log() if self.sees == "shares" else seen

    def _mean(self, images: Tensor, num_samples: int) -> Tensor:
        total = self._seen(images)
        for _ in range(num_samples - 1):
            total = total + self._seen(images)
        return total / num_samples

    def _seen(self, images: Tensor) -> Tensor:
        with naming_channels(images):
            logits = check_logits(self.model(images), len(images))
        logits = logits if logits.dtype == torch.float64 else logits.float()
        seen = logits.softmax(1) if self.sees == "shares" else logits
        if not bool(seen.isfinite().all()):
            raise ArgumentError("model", "finite logits", "NaN or infinity")
        return functional.one_hot(seen.argmax(1), seen.shape[1]).to(seen) if self.sees == "labels" else seen


def queries_of(model: Classifier | Queries, inputs: Tensor) -> Queries:
    """`model` as `Queries` that count from 0 for an attack on `inputs`: unbounded and seeing logits if it was none."""
    queries = model if isinstance(model, Queries) else Queries(model)
    queries.begin(check_inputs(inputs))
    return queries


def require_scores(queries: Queries, attack: str) -> None:
    """Raise `ArgumentError` where labels alone are seen, for an attack that compares scores."""
    if queries.sees == "labels":
        raise ArgumentError("sees", f"logits or shares with {attack}, which compares scores", "labels")


def _module_of(model: Classifier) -> Classifier:
    """The module that answers, where `model` is one or is a method of one, such as a `Smoothed`'s `log_probs`."""
    owner = getattr(model, "__self__", None)
    return owner if isinstance(owner, nn.Module) else model
