"""Common parts of the query attacks: limits, answers, the test for success, and the images that are still attacked."""

from collections.abc import Iterator
from numbers import Real

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.attacks.losses import Loss, margin
from smoothed.attacks.query_based.queries import Queries, as_queries, require_scores
from smoothed.errors import ArgumentError
from smoothed.utils.checks import (
    check_callable,
    check_classes,
    check_flag,
    check_inputs,
    check_labels,
    check_positive,
    check_values,
)
from smoothed.utils.modes import Classifier

DEFAULT_MAX_QUERIES = 1000

Candidates = Float[Tensor, "m p c h w"]


class QueryAttack:
    """State of a query attack in progress. An image leaves the attack as soon as an answer shows success.

    All active images are queried equally often, so one limit holds for all of them.

    Attributes:
        inputs: attacked images, (N, C, H, W).
        active: indices of the images that are not done, (M,) int64.
        max_candidates: number of candidates that may be evaluated per image.

    Args:
        attack: name of the attack, for errors.
        model: any callable from images to logits (N, K), or `Queries`.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or target classes if `targeted`.
        loss: loss of the answers to ascend, or to descend if `targeted`.
        targeted: whether `labels` are target classes.
        max_queries: maximum number of queries per image; the limit of `Queries` applies too. None for 1,000 if
            `Queries` sets no limit.
        eot_samples: number of answers averaged for each candidate; each counts as a query.
        confidence: margin in logits above which an image is done.

    Raises:
        ArgumentError: inputs or labels are invalid (see `check_inputs` and `check_labels`), the answers are only
            labels, or there are fewer queries than `eot_samples`.
    """

    def __init__(
        self,
        attack: str,
        model: Classifier | Queries,
        inputs: Tensor,
        labels: Tensor,
        *,
        loss: Loss = margin,
        targeted: bool = False,
        max_queries: int | None = None,
        eot_samples: int = 1,
        confidence: float = 0.0,
    ) -> None:
        self.inputs = check_inputs(inputs).detach()
        self.labels = check_labels(labels, inputs)
        self.queries = as_queries(model, self.inputs)
        require_scores(self.queries, attack)
        check_callable(loss, "loss")
        self.loss = loss
        self.sign = -1.0 if check_flag(targeted, "targeted") else 1.0
        self.eot_samples = check_positive(eot_samples, "eot_samples")
        # Infinite for attacks that use all their queries; NaN fails the comparison.
        if isinstance(confidence, bool) or not isinstance(confidence, Real) or not confidence >= 0:
            raise ArgumentError("confidence", "a number of at least 0", repr(confidence))
        self.confidence = float(confidence)
        self.active: Int[Tensor, " m"] = torch.arange(len(inputs), device=inputs.device)
        self._successes = self.inputs.clone()
        self._done = torch.zeros_like(self.active, dtype=torch.bool)
        limits = [limit for limit in (max_queries, self.queries.max_queries) if limit is not None]
        max_queries = min((check_positive(limit, "max_queries") for limit in limits), default=DEFAULT_MAX_QUERIES)
        if max_queries < eot_samples:
            raise ArgumentError("max_queries", f"at least eot_samples, {eot_samples}", max_queries)
        self.max_candidates = max_queries // eot_samples

    def ask(self, candidates: Candidates, rows: Int[Tensor, " m"]) -> Float[Tensor, "m p"]:
        """Query P candidates (M, P, C, H, W) for each image of `rows`. Images with a success are done.

        If several candidates succeed, the one with the highest value is kept. Candidates must lie inside the ball and
        in [0, 1].

        Returns:
            The value of each candidate, the loss that the attack ascends, (M, P).
        """
        answers, labels = self._answers(candidates, rows)
        values = self._values(answers, labels).view(len(rows), -1)
        margins = values if self.loss is margin else self.sign * margin(answers, labels).view(len(rows), -1)
        succeeded = margins > self.confidence
        done = succeeded.any(1)
        if bool(done.any()):
            best = values.masked_fill(~succeeded, -torch.inf).argmax(1)[done]
            self._successes[rows[done]] = candidates[done, best]
            self._done[rows[done]] = True
            self.active = self.active[~self._done[self.active]]
        return values

    def measure(self, candidates: Candidates, rows: Int[Tensor, " m"]) -> Float[Tensor, "m p"]:
        """Return the values of candidates, (M, P), which may lie outside the ball, without a test for success."""
        answers, labels = self._answers(candidates, rows)
        return self._values(answers, labels).view(len(rows), -1)

    def batches(self, candidates: int) -> Iterator[Int[Tensor, " g"]]:
        """Iterate over the active images in batches that fill a forward pass, with `candidates` per image.

        A batch has at least one image.
        """
        yield from self.active.split(max(1, self.queries.chunk_size // candidates))

    def result(self, last: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return the successful candidates, and the images of `last` where there is none, (N, C, H, W)."""
        return torch.where(self._done.view(-1, 1, 1, 1), self._successes, last)

    def _values(self, answers: Tensor, labels: Tensor) -> Tensor:
        """Return the value of each answer, (M * P,)."""
        return self.sign * check_values(self.loss(answers, labels), len(answers), "loss")

    def _answers(self, candidates: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the answers (M * P, K) and their labels (M * P,)."""
        candidate_rows = rows.repeat_interleave(candidates.shape[1])
        answers = self.queries.ask(candidates.flatten(0, 1), candidate_rows, self.eot_samples)
        check_classes(self.labels, answers.shape[1])
        return answers, self.labels[candidate_rows]
