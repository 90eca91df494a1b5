"""What query attacks share: the goal for each image, when it is reached, and which images are still after it."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.attacks.losses import Loss, margin
from smoothed.attacks.query_based.queries import Queries, queries_of, require_scores
from smoothed.errors import ArgumentError
from smoothed.utils.checks import check_classes, check_inputs, check_labels, check_positive
from smoothed.utils.modes import Classifier

DEFAULT_MAX_QUERIES = 1000

Candidates = Float[Tensor, "m p c h w"]


class Pursuit:
    """A query attack under way. An image leaves it as soon as an answer shows success.

    All open images are asked equally often, so they run out of queries together: attacks count one budget.

    Attributes:
        inputs: the attacked images, (N, C, H, W).
        open: the numbers of the images that are not done, (M,) int64.
        budget: how many candidates may be asked about for each image.

    Args:
        attack: its name, for errors.
        model: any callable from images to logits (N, K), or `Queries`.
        inputs: images in [0, 1], (N, C, H, W).
        labels: true classes (N,), or the classes to reach if `targeted`.
        loss: of the answers, to be ascended at true labels and descended at targets.
        targeted: whether `labels` are what the attack wants.
        max_queries: for each image; the smaller of this and the bound of `Queries`, and 1,000 where neither is given.
        num_samples: answers averaged for each candidate; each is a query.
        confidence: the margin above which an image is done.

    Raises:
        ArgumentError: inputs or labels as `check_inputs` and `check_labels` refuse them, answers that are labels alone,
            or fewer queries than `num_samples`.
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
        num_samples: int = 1,
        confidence: float = 0.0,
    ) -> None:
        self.inputs = check_inputs(inputs).detach()
        self.labels = check_labels(labels, inputs)
        self.queries = queries_of(model, self.inputs)
        require_scores(self.queries, attack)
        self.loss = loss
        self.sign = -1.0 if targeted else 1.0
        self.num_samples = check_positive(num_samples, "num_samples")
        self.confidence = confidence
        self.open: Int[Tensor, " m"] = torch.arange(len(inputs), device=inputs.device)
        self._found = self.inputs.clone()
        self._done = torch.zeros_like(self.open, dtype=torch.bool)
        bounds = [bound for bound in (max_queries, self.queries.max_queries) if bound is not None]
        max_queries = min((check_positive(bound, "max_queries") for bound in bounds), default=DEFAULT_MAX_QUERIES)
        if max_queries < num_samples:
            raise ArgumentError("max_queries", f"at least num_samples, {num_samples}", max_queries)
        self.budget = max_queries // num_samples

    def ask(self, candidates: Candidates, rows: Int[Tensor, " m"]) -> Float[Tensor, "m p"]:
        """The values (M, P) of P candidates (M, P, C, H, W) for each image of `rows`; what succeeds ends its image.

        Of several that succeed, the one of the highest value is kept. Candidates must lie inside the ball and [0, 1].
        """
        answers, labels = self._answers(candidates, rows)
        values = self.sign * self.loss(answers, labels).view(len(rows), -1)
        margins = values if self.loss is margin else self.sign * margin(answers, labels).view(len(rows), -1)
        succeeded = margins > self.confidence
        done = succeeded.any(1)
        if bool(done.any()):
            best = values.masked_fill(~succeeded, -torch.inf).argmax(1)[done]
            self._found[rows[done]] = candidates[done, best]
            self._done[rows[done]] = True
            self.open = self.open[~self._done[self.open]]
        return values

    def measure(self, candidates: Candidates, rows: Int[Tensor, " m"]) -> Float[Tensor, "m p"]:
        """The values alone, for candidates that may be outside the ball: none of them counts as a success."""
        answers, labels = self._answers(candidates, rows)
        return self.sign * self.loss(answers, labels).view(len(rows), -1)

    def groups(self, candidates: int) -> Iterator[Int[Tensor, " g"]]:
        """The open images, as many at a time as fill a pass with that many `candidates` each, and at least one."""
        yield from self.open.split(max(1, self.queries.chunk_size // candidates))

    def result(self, last: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """What succeeded, and the images of `last` for those that did not, (N, C, H, W)."""
        return torch.where(self._done.view(-1, 1, 1, 1), self._found, last)

    def _answers(self, candidates: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The answers (M * P, K), and the label of each."""
        each = rows.repeat_interleave(candidates.shape[1])
        answers = self.queries.ask(candidates.flatten(0, 1), each, self.num_samples)
        check_classes(self.labels, answers.shape[1])
        return answers, self.labels[each]
