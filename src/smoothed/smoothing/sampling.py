"""Make and count the draws of a vote; one set of draws serves every M and every kind of vote.

The outer loop runs over draws and the inner one over images. Decided images leave the batch; undecided ones fill it.
Noise is a function of (seed, draw, image), so an image's noise does not depend on the other images of a pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.errors import ArgumentError
from smoothed.rng.sources import Keyed
from smoothed.smoothing.noisy_classifier import NoisyClassifier
from smoothed.smoothing.stopping import StoppingProblem, StoppingRule, VoteState
from smoothed.smoothing.tally import Tally
from smoothed.smoothing.votes import Vote, vote_bound
from smoothed.utils.checks import check_logits, explaining_channel_errors

# Maximum number of passes before votes are counted, so that the cost of counting is shared among them.
_MAX_PASSES = 16


@dataclass(frozen=True)
class VoteRequest:
    """The votes to take: numbers of draws, kinds of vote, and when to stop.

    Attributes:
        num_samples: numbers of draws M at which to report a tally.
        votes: kinds of vote by name.
        stop: rule that decides when an image needs no more draws; None makes all draws.
    """

    num_samples: Sequence[int]
    votes: Mapping[str, Vote]
    stop: StoppingRule | None = None


@dataclass(frozen=True)
class Sampler:
    """Computes the logits of draws in passes of at most `chunk_size` rows.

    Attributes:
        noisy_classifier: the model and the noise.
        seed: seed of all noise.
        chunk_size: maximum number of rows in a pass.
        pack_draws: whether a pass may hold several draws of an image. It must be False if rows of a batch share the
            noise of the weights, because votes must be independent.
        first_image: number of the first input in the key of the noise.
        first_draw: number of the first draw in the key of the noise.
        stacks: whether draws of a few images may share a pass (`Passes.stacked`) if a trial shows that this is faster.
            The trial takes as long as 128 draws, so it is skipped for votes of few draws.
    """

    noisy_classifier: NoisyClassifier
    seed: int
    chunk_size: int
    pack_draws: bool
    first_image: int = 0
    first_draw: int = 0
    stacks: bool = True

    def draws_to_compute(self, images: Float[Tensor, "a c h w"], required: int, allowed: int) -> int:
        """Number of draws to compute before counting votes.

        Required draws may span several passes. Draws that may turn out unnecessary fill at most one pass.

        Args:
            images: a batch of as many images as are still undecided, (A, C, H, W).
            required: number of further draws that every image needs in any case, at least 1.
            allowed: maximum number of draws to compute.
        """
        if allowed == 1:
            return 1
        required = min(required, _MAX_PASSES * self.chunk_size // len(images))
        return min(allowed, max(required, self._of_a_pass(images)))

    def _of_a_pass(self, images: Float[Tensor, "a c h w"]) -> int:
        """Number of draws of these images that share one pass."""
        if self.pack_draws:
            return max(1, self.chunk_size // len(images))
        if not self.stacks:
            return 1
        return self.noisy_classifier.draws_per_pass(images, self.chunk_size)

    def logits(
        self, inputs: Tensor, undecided: Int[Tensor, " a"], drawn: int, draws: int
    ) -> Float[Tensor, "draws a k"]:
        """Compute the logits of the next draws of the undecided images.

        Args:
            inputs: all images, (N, C, H, W).
            undecided: indices of the images to draw, (A,) int64 on the CPU.
            drawn: number of draws that each of these images already has.
            draws: number of draws to compute.

        Returns:
            Logits (draws, A, K).
        """
        numbers = self.first_draw + drawn + torch.arange(draws)
        rows, images = undecided, undecided + self.first_image
        if len(rows) <= self.chunk_size:  # one copy in the model's memory format serves all these draws
            inputs, rows = self.noisy_classifier.in_memory_format(_select_rows(inputs, rows)), torch.arange(len(rows))
        if self.pack_draws:
            draw_of_row = numbers.repeat_interleave(len(rows))
            return self.logits_of_rows(inputs, rows.repeat(draws), draw_of_row, images.repeat(draws)).view(
                draws, len(rows), -1
            )
        if draws > 1 and (together := self._of_a_pass(inputs[: len(rows)])) > 1:
            keys = [Keyed(self.seed, number, images) for number in numbers.tolist()]
            stacks = [keys[start : start + together] for start in range(0, draws, together)]
            made = torch.cat([self.noisy_classifier.stacked(_select_rows(inputs, rows), stack) for stack in stacks])
            check_logits(made[0], len(rows))
            return made
        return torch.stack([self.logits_of_rows(inputs, rows, number.expand(len(rows)), images) for number in numbers])

    def logits_of_rows(
        self, inputs: Tensor, rows: Int[Tensor, " r"], draws: Int[Tensor, " r"], images: Int[Tensor, " r"]
    ) -> Float[Tensor, "r k"]:
        """Compute logits row by row, where each row is one draw of one image, in passes of nearly equal size.

        Rows with different draws require `pack_draws`.

        Args:
            inputs: images, (N, C, H, W).
            rows: index into `inputs` of each row, (R,) int64 on the CPU.
            draws: number of each row's draw in the key of the noise, (R,).
            images: number of each row's image in the key of the noise, (R,).

        Returns:
            Logits (R, K).
        """
        parts = torch.arange(len(rows)).tensor_split(-(-len(rows) // self.chunk_size))
        return torch.cat([self._pass(_select_rows(inputs, rows[part]), draws[part], images[part]) for part in parts])

    def _pass(
        self, rows: Float[Tensor, "r c h w"], draws: Int[Tensor, " r"], images: Int[Tensor, " r"]
    ) -> Float[Tensor, "r k"]:
        rows = self.noisy_classifier.in_memory_format(rows)
        if self.noisy_classifier.passes_inputs_through:
            rows = rows.clone()  # a model may modify its input in place
        with explaining_channel_errors(rows):
            return check_logits(self.noisy_classifier.with_key(rows, Keyed(self.seed, draws, images)), len(rows))


def count_votes(sampler: Sampler, inputs: Tensor, request: VoteRequest) -> dict[str, dict[int, Tally]]:
    """Tally every kind of vote at every M from one shared set of draws.

    An image is drawn until each vote at each M either has its M draws or has been stopped by the rule. Draws computed
    beyond that point, because they shared a pass, are not counted.

    Args:
        sampler: computes the draws.
        inputs: images in [0, 1], (N, C, H, W).
        request: the votes to take.

    Returns:
        Tallies by name of the vote, then by M, with float32 scores (N, K); differentiable if the votes are.

    Raises:
        ArgumentError: the model does not return finite logits (N, K), or a vote returns scores of another shape.
    """
    counter = _VoteCounter(request, len(inputs))
    checked_finite = False
    finite = torch.ones((), dtype=torch.bool, device=inputs.device)
    while len(images := counter.undecided.nonzero()[:, 0]):
        required = counter.required_draws()
        # The first draws fit one pass, so that a faulty model fails early.
        draws = sampler.draws_to_compute(
            inputs[: len(images)], required if checked_finite else 1, counter.allowed_draws(required)
        )
        logits = sampler.logits(inputs, images, counter.drawn, draws)
        finite &= logits.isfinite().all()
        if not checked_finite:  # then again only at the end, because reading the result waits for the GPU
            require_finite(finite)
            checked_finite = True
        while len(logits) and len(remaining := counter.undecided[images].nonzero()[:, 0]):
            counted, logits = logits.tensor_split([counter.draws_until_check()])
            if len(remaining) < len(images):
                counted = counted[:, remaining.to(counted.device)]
            counter.add(images[remaining], counted)
    require_finite(finite)
    return counter.tallies()


class _VoteCounter:
    """Running scores of all images, and the votes that are still undecided."""

    def __init__(self, request: VoteRequest, images: int) -> None:
        self.votes = request.votes
        self.drawn = 0
        self.undecided = torch.ones(images, dtype=torch.bool)
        self._max_samples = max(request.num_samples)
        self._makes_all_draws = request.stop is None
        self._scores: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}  # sums of squared scores, which stopping rules need
        self._open_votes = {
            (name, total): _OpenVote(StoppingProblem(vote, total, images), request.stop)
            for name, vote in request.votes.items()
            for total in request.num_samples
        }

    def required_draws(self) -> int:
        """Number of further draws that every undecided image needs before all its votes can be decided."""
        remaining = self._max_samples - self.drawn
        if self._makes_all_draws or remaining == 1:
            return remaining
        earliest = torch.stack([vote.earliest_stop for vote in self._open_votes.values()]).amax(0)
        return min(remaining, int(earliest[self.undecided].min()) - self.drawn)

    def allowed_draws(self, required: int) -> int:
        """Maximum number of draws to compute at once, such that at most a third of all draws is wasted."""
        return min(self._max_samples - self.drawn, max(required, 1 + self.drawn // 2))

    def draws_until_check(self) -> int:
        """Number of draws to count before a vote may next be decided."""
        return min(vote.next_check for vote in self._open_votes.values() if vote.undecided.any()) - self.drawn

    def add(self, images: Int[Tensor, " a"], logits: Float[Tensor, "draws a k"]) -> None:
        """Count the next draws of the given images."""
        self.drawn += len(logits)
        rows = logits.flatten(0, 1)
        for name, vote in self.votes.items():
            scores = _check_scores(vote(rows), rows).view(logits.shape)
            self._scores[name] = self._accumulate(self._scores.get(name), images, scores.sum(0))
            if self._makes_all_draws or vote_bound(vote, logits.shape[2]).is_one_hot:
                self._squares[name] = self._scores[name]
            else:
                squares = scores.detach().square().sum(0)
                self._squares[name] = self._accumulate(self._squares.get(name), images, squares)
        has_decisions = [
            vote.update(VoteState(self._scores[name], self._squares[name], self.drawn))
            for (name, _), vote in self._open_votes.items()
        ]
        if any(has_decisions):
            self.undecided = torch.stack([vote.undecided for vote in self._open_votes.values()]).any(0)

    def _accumulate(
        self, total: Tensor | None, images: Int[Tensor, " a"], addend: Float[Tensor, "a k"]
    ) -> Float[Tensor, "n k"]:
        """Add the sums of some images to the totals of all images."""
        if total is None:
            total = addend.new_zeros(len(self.undecided), addend.shape[1])
        return total + addend if len(images) == len(total) else total.index_add(0, images.to(addend.device), addend)

    def tallies(self) -> dict[str, dict[int, Tally]]:
        """Tallies by name of the vote, then by M, once every vote is decided."""
        tallies: dict[str, dict[int, Tally]] = {name: {} for name in self.votes}
        for (name, total), vote in self._open_votes.items():
            tallies[name][total] = vote.tally()
        return tallies


class _OpenVote:
    """One kind of vote at one M: the images that are undecided, and the results of the others."""

    def __init__(self, problem: StoppingProblem, stop: StoppingRule | None) -> None:
        self.total = problem.total
        self.undecided = torch.ones(problem.images, dtype=torch.bool)
        # Smallest number of draws at which each image may stop.
        self.earliest_stop = torch.full((problem.images,), 1 if stop else self.total)
        # Number of draws at which the rule is evaluated next: the minimum over the undecided images.
        self.next_check = 1 if stop else self.total
        self._monitor = stop.monitor(problem) if stop else None
        self._results: list[tuple[Tensor, Tensor, int]] = []

    def update(self, state: VoteState) -> bool:
        """Apply the rule to the state of all images; return whether the vote was decided for some."""
        drawn = state.drawn
        if drawn < self.next_check or not self.undecided.any():
            return False
        images = self.undecided.nonzero()[:, 0]
        scores = _select_rows(state.scores, images)
        needs = torch.zeros(len(images), dtype=torch.int64)
        if drawn < self.total and self._monitor:
            needs = self._monitor(VoteState(scores, _select_rows(state.squares, images), drawn)).cpu()
        self.earliest_stop[images] = earliest = (needs + drawn).clamp_max(self.total)
        decided = needs <= 0
        if any_decided := bool(decided.any()):
            self.undecided[images[decided]] = False
            self._results.append((images[decided], _select_rows(scores, decided.nonzero()[:, 0]).clone(), drawn))
        self.next_check = int(earliest[~decided].min()) if not decided.all() else self.total
        return any_decided

    def tally(self) -> Tally:
        """The tally of all images, in their order."""
        images = torch.cat([images for images, _, _ in self._results])
        drawn = torch.cat([torch.full((len(images),), drawn) for images, _, drawn in self._results])
        scores = torch.cat([scores for _, scores, _ in self._results])
        order = images.argsort()
        return Tally(_select_rows(scores, order), drawn[order].to(scores.device))


def _select_rows(rows: Tensor, index: Int[Tensor, " r"]) -> Tensor:
    """Select rows by an index on the CPU: a view if the rows are consecutive, in the memory format of `rows`."""
    if len(index) and torch.equal(index, torch.arange(len(index)) + index[0]):
        return rows[int(index[0]) :][: len(index)]
    index = index.to(rows.device)  # `index_select` on contiguous rows is several times as fast as `rows[index]`
    if rows.ndim == 4 and rows.is_contiguous(memory_format=torch.channels_last):
        return rows.movedim(1, -1).index_select(0, index).movedim(-1, 1)
    return rows.index_select(0, index)


def require_finite(finite: Bool[Tensor, ""]) -> None:
    """Raise `ArgumentError` if not all logits of the draws are finite."""
    if not finite:
        raise ArgumentError("model", "finite logits", "NaN or infinity")


def _check_scores(scores: Tensor, logits: Tensor) -> Tensor:
    if scores.shape != logits.shape:
        raise ArgumentError("vote", f"scores of shape {tuple(logits.shape)}", f"shape {tuple(scores.shape)}")
    return scores.to(torch.float32)
