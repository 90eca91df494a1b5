"""The draws of a vote, made and counted: all Ms and all votes are read off the same ones.

Draws run in the outer loop and images in the inner one. An image whose votes are settled leaves, and the passes stay
full with those that go on. Noise is a function of (seed, draw, image), so what an image gets does not depend on who
shares its passes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smoothed.errors import ArgumentError
from smoothed.rng.sources import Keyed
from smoothed.smoothing.noisy_classifier import OneDraw
from smoothed.smoothing.stopping import Question, Seen, Stop
from smoothed.smoothing.tally import Tally
from smoothed.smoothing.votes import Vote, bound_of
from smoothed.utils.checks import check_logits, naming_channels

# Passes that are made before their draws are counted, where they are sure to count: what lies between them is shared.
_PASSES = 16


@dataclass(frozen=True)
class Ballot:
    """What is asked of the draws.

    Attributes:
        at: numbers of draws, M.
        votes: by name.
        stop: when an image needs no more draws; None for never.
    """

    at: Sequence[int]
    votes: Mapping[str, Vote]
    stop: Stop | None = None


@dataclass(frozen=True)
class Drawer:
    """Makes draws in full passes.

    Attributes:
        one_draw: the model and the noise.
        seed: of all noise.
        chunk_size: most rows of a pass.
        packs: whether a pass may hold several draws of an image: not where rows share the noise of the weights, for
            votes must be independent.
        first_image: the number of the first input in the key of the noise.
        first_draw: likewise of the first draw.
    """

    one_draw: OneDraw
    seed: int
    chunk_size: int
    packs: bool
    first_image: int = 0
    first_draw: int = 0

    def at_once(self, images: Float[Tensor, "a c h w"], sure: int, worth: int) -> int:
        """How many draws of as many images as these to make before the next are counted.

        Those that are sure to count, for some passes, and of those that may be in vain no more than fill one.

        Args:
            images: (A, C, H, W).
            sure: how many draws are needed in any case, at least 1.
            worth: how many may be made.
        """
        if worth == 1:
            return 1
        sure = min(sure, _PASSES * self.chunk_size // len(images))
        return min(worth, max(sure, self._of_a_pass(images)))

    def _of_a_pass(self, images: Float[Tensor, "a c h w"]) -> int:
        if self.packs:
            return max(1, self.chunk_size // len(images))
        return self.one_draw.draws_of_a_pass(images, self.chunk_size)

    def logits(self, inputs: Tensor, going: Int[Tensor, " a"], drawn: int, draws: int) -> Float[Tensor, "draws a k"]:
        """The logits of the next draws of some images.

        Args:
            inputs: all of them, (N, C, H, W).
            going: which go on, (A,) on the CPU.
            drawn: how many draws each has had.
            draws: how many to make.
        """
        numbers = self.first_draw + drawn + torch.arange(draws)
        rows, images = going, going + self.first_image
        if len(rows) <= self.chunk_size:  # laid out once for all these draws; of more, pass by pass
            inputs, rows = self.one_draw.laid_out(_taken(inputs, rows)), torch.arange(len(rows))
        if self.packs:
            of = numbers.repeat_interleave(len(rows))
            return self._passes(inputs, rows.repeat(draws), of, images.repeat(draws)).view(draws, len(rows), -1)
        if draws > 1 and (together := self._of_a_pass(inputs[: len(rows)])) > 1:
            keys = [Keyed(self.seed, number, images) for number in numbers.tolist()]
            stacks = [keys[start : start + together] for start in range(0, draws, together)]
            made = torch.cat([self.one_draw.stacked(_taken(inputs, rows), stack) for stack in stacks])
            check_logits(made[0], len(rows))
            return made
        return torch.stack([self._passes(inputs, rows, number.expand(len(rows)), images) for number in numbers])

    def _passes(
        self, inputs: Tensor, rows: Int[Tensor, " r"], draws: Int[Tensor, " r"], images: Int[Tensor, " r"]
    ) -> Float[Tensor, "r k"]:
        """Rows of `inputs`, with the draw and the number of each one's image.

        In passes of equal size, rather than full ones and a small rest.
        """
        parts = torch.arange(len(rows)).tensor_split(-(-len(rows) // self.chunk_size))
        return torch.cat([self._pass(_taken(inputs, rows[part]), draws[part], images[part]) for part in parts])

    def _pass(
        self, rows: Float[Tensor, "r c h w"], draws: Int[Tensor, " r"], images: Int[Tensor, " r"]
    ) -> Float[Tensor, "r k"]:
        rows = self.one_draw.laid_out(rows)
        if self.one_draw.hands_over:
            rows = rows.clone()  # a model may write to what it gets
        with naming_channels(rows):
            return check_logits(self.one_draw.keyed(rows, Keyed(self.seed, draws, images)), len(rows))


def count_votes(drawer: Drawer, inputs: Tensor, ballot: Ballot) -> dict[str, dict[int, Tally]]:
    """Tallies at every M and under every vote, all read off one set of draws.

    An image goes on until each vote at each M has had its draws, or is settled. What is made in one pass beyond that is
    not counted.

    Args:
        drawer: makes the draws.
        inputs: images in [0, 1], (N, C, H, W).
        ballot: what is asked.

    Returns:
        By vote's name, by M: the tally, whose scores (N, K) are float32; differentiable if the votes are.

    Raises:
        ArgumentError: a model that gives no finite logits (N, K), or a vote that gives no scores of their shape.
    """
    counts = _Counts(ballot, len(inputs))
    looked = False
    finite = torch.ones((), dtype=torch.bool, device=inputs.device)
    while len(going := counts.going.nonzero()[:, 0]):
        sure = counts.sure()
        # Before any logits were seen, no more than a pass.
        draws = drawer.at_once(inputs[: len(going)], sure if looked else 1, counts.worth_making(sure))
        made = drawer.logits(inputs, going, counts.drawn, draws)
        finite &= made.isfinite().all()
        if not looked:  # and once more at the end, for on a GPU the answer has to be waited for
            _require_finite(finite)
            looked = True
        while len(made) and len(still := counts.going[going].nonzero()[:, 0]):
            seen, made = made.tensor_split([counts.until_look()])
            counts.add(going[still], seen if len(still) == len(going) else seen[:, still.to(seen.device)])
    _require_finite(finite)
    return counts.tallies()


class _Counts:
    """The scores so far, and which questions are still open."""

    def __init__(self, ballot: Ballot, images: int) -> None:
        self.votes = ballot.votes
        self.drawn = 0
        self.going = torch.ones(images, dtype=torch.bool)
        self._most = max(ballot.at)
        self._blind = ballot.stop is None
        self._scores: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}  # of the scores, where a rule watches
        self._questions = {
            (name, total): _Open(Question(vote, total, images), ballot.stop)
            for name, vote in ballot.votes.items()
            for total in ballot.at
        }

    def sure(self) -> int:
        """How many draws all images that go on need in any case: none stops before its last question may."""
        left = self._most - self.drawn
        if self._blind or left == 1:
            return left
        soonest = torch.stack([question.soonest for question in self._questions.values()]).amax(0)
        return min(left, int(soonest[self.going].min()) - self.drawn)

    def worth_making(self, sure: int) -> int:
        """How many draws may be made: beyond those that are sure, what is made in vain is never more than a third."""
        return min(self._most - self.drawn, max(sure, 1 + self.drawn // 2))

    def until_look(self) -> int:
        """How many draws may be counted before an image may stop."""
        return min(question.next for question in self._questions.values() if question.going.any()) - self.drawn

    def add(self, images: Int[Tensor, " a"], logits: Float[Tensor, "draws a k"]) -> None:
        """Count the next draws of the images that go on."""
        self.drawn += len(logits)
        rows = logits.flatten(0, 1)
        for name, vote in self.votes.items():
            scores = _check_scores(vote(rows), rows).view(logits.shape)
            self._scores[name] = self._with(self._scores.get(name), images, scores.sum(0))
            if self._blind or bound_of(vote, logits.shape[2]).counts:
                self._squares[name] = self._scores[name]
            else:
                self._squares[name] = self._with(self._squares.get(name), images, scores.detach().square().sum(0))
        closed = [
            question.look(Seen(self._scores[name], self._squares[name], self.drawn))
            for (name, _), question in self._questions.items()
        ]
        if any(closed):
            self.going = torch.stack([question.going for question in self._questions.values()]).any(0)

    def _with(
        self, total: Tensor | None, images: Int[Tensor, " a"], more: Float[Tensor, "a k"]
    ) -> Float[Tensor, "n k"]:
        """What there is of all images, with more of some."""
        if total is None:
            total = more.new_zeros(len(self.going), more.shape[1])
        return total + more if len(images) == len(total) else total.index_add(0, images.to(more.device), more)

    def tallies(self) -> dict[str, dict[int, Tally]]:
        """What there is to say when no question is open."""
        tallies: dict[str, dict[int, Tally]] = {name: {} for name in self.votes}
        for (name, total), question in self._questions.items():
            tallies[name][total] = question.tally()
        return tallies


class _Open:
    """One question: the images that it is still open for, and the answers for the others."""

    def __init__(self, question: Question, stop: Stop | None) -> None:
        self.total = question.total
        self.going = torch.ones(question.images, dtype=torch.bool)
        # The draws that each image has before it may stop.
        self.soonest = torch.full((question.images,), 1 if stop else self.total)
        self._watch = stop.watch(question) if stop else None
        # The draws at which one of them may, first of all.
        self.next = 1 if stop else self.total
        self._closed: list[tuple[Tensor, Tensor, int]] = []

    def look(self, seen: Seen) -> bool:
        """Whether what is seen of all images closed the question for some."""
        drawn = seen.drawn
        if drawn < self.next or not self.going.any():
            return False
        images = self.going.nonzero()[:, 0]
        scores = _taken(seen.scores, images)
        needs = torch.zeros(len(images), dtype=torch.int64)
        if drawn < self.total and self._watch:
            needs = self._watch(Seen(scores, _taken(seen.squares, images), drawn)).cpu()
        self.soonest[images] = soonest = (needs + drawn).clamp_max(self.total)
        done = needs <= 0
        if stopped := bool(done.any()):
            self.going[images[done]] = False
            self._closed.append((images[done], _taken(scores, done.nonzero()[:, 0]).clone(), drawn))
        self.next = int(soonest[~done].min()) if not done.all() else self.total
        return stopped

    def tally(self) -> Tally:
        """The answers, of all images."""
        images = torch.cat([images for images, _, _ in self._closed])
        drawn = torch.cat([torch.full((len(images),), drawn) for images, _, drawn in self._closed])
        scores = torch.cat([scores for _, scores, _ in self._closed])
        order = images.argsort()
        return Tally(_taken(scores, order), drawn[order].to(scores.device))


def _taken(rows: Tensor, index: Int[Tensor, " r"]) -> Tensor:
    """Those rows, by an index on the CPU: without a copy if they follow each other, and laid out as all are."""
    if len(index) and torch.equal(index, torch.arange(len(index)) + index[0]):
        return rows[int(index[0]) :][: len(index)]
    index = index.to(rows.device)  # `index_select` is several times as fast as brackets, of what lies row by row
    if rows.ndim == 4 and rows.is_contiguous(memory_format=torch.channels_last):
        return rows.movedim(1, -1).index_select(0, index).movedim(-1, 1)
    return rows.index_select(0, index)


def _require_finite(finite: Bool[Tensor, ""]) -> None:
    if not finite:
        raise ArgumentError("model", "finite logits", "NaN or infinity")


def _check_scores(scores: Tensor, logits: Tensor) -> Tensor:
    if scores.shape != logits.shape:
        raise ArgumentError("vote", f"scores of shape {tuple(logits.shape)}", f"shape {tuple(scores.shape)}")
    return scores.to(torch.float32)
